// What the tests of the device operations share: the backends of this machine, guarded device
// memory, and activations with their codes read back.
//
//   class Linear : public BackendTest {};
//   TEST_P(Linear, ...) { Guarded y(*backend, rows * n * 4); backend->linear({..., .y =
//   y.as<float>()}); } INSTANTIATE_TEST_SUITE_P(All, Linear, ::testing::ValuesIn(candidates()),
//   candidate_name);
//
// Every test runs for `reference`, for `cpu` with each instruction set that the machine has, and for `cuda`, where it is
// skipped with the reason when there is no plug-in or no device.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/error.h"
#include "base/executor.h"

namespace atom::backend {

inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline Executor& three_threads() {
  static Executor pool(
      {.threads = 3});  // the most that a test uses: TBB takes the least of all pools
  return pool;
}

struct Candidate {
  std::string name;
  std::string isa;

  std::string word() const { return name + (isa.empty() ? "" : "_") + isa; }
  friend void PrintTo(const Candidate& c, std::ostream* out) { *out << c.word(); }
};

inline std::unique_ptr<Backend> open_candidate(const Candidate& candidate, Executor& executor) {
  const char* plugin = std::getenv("ATOM_CUDA_PLUGIN");
  return open_backend(candidate.name, {.executor = &executor,
                                       .isa = candidate.isa,
                                       .cuda_plugin = plugin == nullptr ? "" : plugin});
}

// Why a candidate cannot be opened; empty: it can.
inline std::string problem_of(const Candidate& candidate) {
  try {
    open_candidate(candidate, three_threads());
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

// "cpu" without a forced instruction set has to open; forced ones may be missing here, and so may "cuda", whose tests
// are listed all the same.
inline std::vector<Candidate> candidates() {
  std::vector<Candidate> result = {{"reference", ""}, {"cpu", ""}};
  for (const char* isa : {"baseline", "avx2", "avx512-vnni"})
    if (problem_of({"cpu", isa}).empty()) result.push_back({"cpu", isa});
  result.push_back({"cuda", ""});
  return result;
}

// Of "cuda"; asked once.
inline const std::string& cuda_problem() {
  static const std::string problem = problem_of({"cuda", ""});
  return problem;
}

inline std::string candidate_name(const ::testing::TestParamInfo<Candidate>& info) {
  std::string name = info.param.word();
  for (char& c : name)
    if (c == '-') c = '_';
  return name;
}

class BackendTest : public ::testing::TestWithParam<Candidate> {
 protected:
  void SetUp() override {
    if (backend == nullptr) GTEST_SKIP() << cuda_problem();
  }
  static std::unique_ptr<Backend> open(Executor& executor) {
    if (GetParam().name == "cuda" && !cuda_problem().empty()) return nullptr;
    return open_candidate(GetParam(), executor);
  }
  // Bounds of f32 sums, made strict for `reference`: its sums are f64, so that it is off by one
  // rounding.
  static std::vector<double> bounds_here(const std::vector<float>& expected,
                                         std::vector<double> bounds) {
    if (GetParam().name == "reference")
      for (size_t i = 0; i < bounds.size(); ++i)
        bounds[i] = 1e-6 * bounds[i] + 0x1p-23 * std::abs(double{expected[i]});
    return bounds;
  }
  const std::unique_ptr<Backend> backend = open(three_threads());
  const std::unique_ptr<Backend> reference = make_reference_backend();
};

// Device memory between two bands of sentinels, which the destructor expects untouched. Starts as
// all ones: NaN in every floating-point type, so that reading before writing shows.
class Guarded {
 public:
  Guarded(Backend& backend, size_t bytes) : backend_(backend), bytes_(bytes) {
    std::vector<uint8_t> all(2 * kGuard + bytes, kSentinel);
    std::memset(all.data() + kGuard, 0xff, bytes);
    buffer_ = backend.allocate(all.size());
    backend.upload(buffer_.data(), all.data(), all.size());
  }
  template <typename T>
  Guarded(Backend& backend, const std::vector<T>& values)
      : Guarded(backend, values.size() * sizeof(T)) {
    backend.upload(data(), values.data(), bytes_);
  }
  ~Guarded() {
    std::vector<uint8_t> all(2 * kGuard + bytes_);
    backend_.download(all.data(), buffer_.data(), all.size());
    size_t touched = 0;
    for (size_t i = 0; i < kGuard; ++i)
      touched += (all[i] != kSentinel) + (all[kGuard + bytes_ + i] != kSentinel);
    EXPECT_EQ(touched, 0u) << "bytes written outside a buffer of " << bytes_;
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  void* data() const { return buffer_.as<uint8_t>() + kGuard; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data());
  }
  template <typename T>
  std::vector<T> values() const {
    std::vector<T> result(bytes_ / sizeof(T));
    backend_.synchronize();
    backend_.download(result.data(), data(), result.size() * sizeof(T));
    return result;
  }

 private:
  static constexpr size_t kGuard = 256;  // keeps the alignment of allocate()
  static constexpr uint8_t kSentinel = 0xa5;
  Backend& backend_;
  size_t bytes_;
  Buffer buffer_;
};

// A linear's input to be written by a producer.
class Input {
 public:
  Input(Backend& backend, const format::Segments& segments, int rows,
        const std::vector<int32_t>& order = {}, float clip = 1)
      : backend_(backend),
        order_(backend, order),
        spec_{.segments = segments,
              .clip = clip,
              .order = order.empty() ? nullptr : order_.as<int32_t>()},
        rows_(rows),
        data_(backend, backend.activation_bytes(spec_, rows)) {}

  Activation activation() const { return {.data = data_.data(), .spec = &spec_, .rows = rows_}; }
  const InputSpec& spec() const { return spec_; }
  int rows() const { return rows_; }

  struct Codes {
    std::vector<int8_t> codes;  // [rows, k]
    std::vector<float> scales;  // [rows, groups]
  };
  Codes codes() const {
    const size_t rows = static_cast<size_t>(rows_);
    Codes c;
    c.codes.resize(rows * static_cast<size_t>(spec_.k()));
    c.scales.resize(rows * static_cast<size_t>(format::groups(spec_.segments)));
    backend_.export_codes(activation(), c.codes.data(), c.scales.data());
    return c;
  }
  std::vector<float> dequantized() const {
    Guarded y(backend_,
              static_cast<size_t>(rows_) * static_cast<size_t>(spec_.k()) * sizeof(float));
    backend_.dequantize(activation(), y.as<float>());
    return y.values<float>();
  }
  void set_hadamard(int block) { spec_.hadamard = block; }
  void set_signed_scales(bool on) { spec_.signed_scales = on; }
  void quantize(const std::vector<float>& x) const {
    const Guarded device(backend_, x);
    backend_.quantize({.x = device.as<float>(), .y = activation()});
    backend_.synchronize();
  }

 private:
  Backend& backend_;
  Guarded order_;
  InputSpec spec_;
  int rows_;
  Guarded data_;
};

// [normal][kept] of k channels.
inline format::Segments split(format::Format normal, format::Format kept_format, int k, int kept) {
  if (kept == 0) return format::whole(normal, k);
  return {{format::Segment{normal, k - kept}, format::Segment{kept_format, kept}}};
}

}  // namespace atom::backend
