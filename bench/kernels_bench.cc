// Rates of the cpu backend's kernels next to OpenBLAS sgemm, in one run.
//
//   atom_bench_kernels [isa] [threads] [rounds] [cpu]
//
// One line per shape and number of rows m: GFLOP/s (2 m n k per second) of the linear in several
// formats, then of sgemm. The contestants take turns in every round and the best round of each
// counts, which evens out a busy machine. With `cpu` processor time is counted instead of wall time
// (for a shared machine; use one thread). Threads are pinned. Attention counts 4 * head_dim per
// query and visible key.
#include <cblas.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "backend/open.h"
#include "base/random.h"
#include "format/list.h"

extern "C" void openblas_set_num_threads(int threads);

namespace atom::backend {
namespace {

struct Settings {
  int threads = 2;
  int rounds = 5;
  bool cpu_time = false;
};

double now(const Settings& settings) {
  if (settings.cpu_time) return double(std::clock()) / CLOCKS_PER_SEC / settings.threads;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_of(const Settings& settings, const std::function<void()>& body) {
  const double begin = now(settings);
  body();
  return now(settings) - begin;
}

// Best rate of each contestant in GFLOP/s. Short bodies repeat to last a few milliseconds.
std::vector<double> rates(const std::vector<std::function<void()>>& bodies, double flops,
                          const Settings& settings) {
  std::vector<double> best(bodies.size());
  std::vector<int> repeats;
  for (const auto& body : bodies) {
    body();
    repeats.push_back(1 + static_cast<int>(4e-3 / std::max(1e-6, seconds_of(settings, body))));
  }
  for (int round = 0; round < settings.rounds; ++round) {
    for (size_t i = 0; i < bodies.size(); ++i) {
      const double time = seconds_of(settings, [&] {
        for (int j = 0; j < repeats[i]; ++j) bodies[i]();
      });
      best[i] = std::max(best[i], flops * repeats[i] / time * 1e-9);
    }
  }
  return best;
}

// A weight's bytes: normal values in floating point (random bits would hold denormals and overflow,
// which some processors compute in microcode), random codes otherwise.
std::vector<uint8_t> weight_bytes(format::Format weight, int n, int k, Random& random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(n * format::row_bytes(weight, k)));
  if (format::is_integer(weight)) {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.below(120));
    return bytes;
  }
  format::visit(weight, [&](auto f) {
    using Element = decltype(f);
    if constexpr (!Element::kInteger) {
      auto* values = reinterpret_cast<typename Element::Storage*>(bytes.data());
      for (int64_t i = 0; i < int64_t{n} * k; ++i)
        values[i] = Element::narrow(static_cast<float>(0.02 * random.normal()));
    }
  });
  return bytes;
}

// A linear of random weights with its quantized input.
class Contestant {
 public:
  Contestant(Backend& backend, format::Format weight, format::Format input, int m, int n, int k)
      : backend_(backend), spec_{.segments = format::whole(input, k), .clip = 0.9f} {
    Random random(1);
    const std::vector<uint8_t> codes = weight_bytes(weight, n, k, random);
    std::vector<uint8_t> scales(static_cast<size_t>(n) * format::weight_scales(weight, k) *
                                format::weight_scale_bytes(weight));
    for (uint8_t& byte : scales) byte = static_cast<uint8_t>(40 + random.below(20));
    std::vector<int8_t> multipliers(static_cast<size_t>(n) * format::weight_multipliers(weight, k));
    for (int8_t& multiplier : multipliers) multiplier = static_cast<int8_t>(1 + random.below(15));
    const LinearWeight part{.n = n,
                            .segments = format::whole(weight, k),
                            .part = {{codes.data(), scales.data(), multipliers.data()}, {}},
                            .bias = nullptr};
    weight_ = backend.pack({&part, 1}, spec_.segments);
    input_ = backend.allocate(backend.activation_bytes(spec_, m));
    y_ = backend.allocate(size_t{4} * m * n);
    Buffer x = backend.allocate(size_t{4} * m * k);
    for (int i = 0; i < m * k; ++i) x.as<float>()[i] = static_cast<float>(random.normal());
    activation_ = {input_.data(), &spec_, m};
    backend.quantize({.x = x.as<float>(), .y = activation_});
  }

  void run() {
    const PackedLinear* weight = weight_.get();
    backend_.linear({.x = activation_, .weights = {&weight, 1}, .y = y_.as<float>()});
  }

 private:
  Backend& backend_;
  InputSpec spec_;
  std::unique_ptr<PackedLinear> weight_;
  Buffer input_, y_;
  Activation activation_;
};

void bench_linear(Backend& backend, const Settings& settings, int m, int n, int k) {
  using namespace format;
  Contestant f32(backend, kF32, kF32, m, n, k), bf16(backend, kBF16, kF32, m, n, k);
  Contestant w4a16(backend, int4(128), kF32, m, n, k), w8a8(backend, kInt8, kInt8, m, n, k);
  Contestant w4a8(backend, int4_progressive(128), kInt8, m, n, k);
  Contestant w4a4(backend, int4(128), int4(128), m, n, k);
  std::vector<float> a(size_t(m) * k, 1.0f), b(size_t(n) * k, 0.02f), c(size_t(m) * n);
  const auto sgemm = [&] {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, a.data(), k, b.data(), k,
                0.0f, c.data(), n);
  };
  const std::vector<double> r =
      rates({[&] { f32.run(); }, [&] { bf16.run(); }, [&] { w4a16.run(); }, [&] { w8a8.run(); },
             [&] { w4a8.run(); }, [&] { w4a4.run(); }, sgemm},
            2.0 * m * n * k, settings);
  fmt::print(
      "m {:4} n {:5} k {:4} | f32 {:6.1f} bf16 {:6.1f} w4a16 {:6.1f} w8a8 {:6.1f} "
      "w4a8 {:6.1f} w4a4 {:6.1f} | sgemm {:6.1f} | f32/sgemm {:.2f} w4a4/f32 {:.2f}\n",
      m, n, k, r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[0] / r[6], r[5] / r[0]);
  std::fflush(stdout);
}

// Prefill of `rows` positions at once, and decoding steps of `sequences` at the same context.
void bench_attention(Backend& backend, const Settings& settings, format::KvKind kind, int heads,
                     int kv_heads, int head_dim, int context, int rows) {
  AttentionArgs args;
  args.layout = {.kind = kind, .kv_heads = kv_heads, .head_dim = head_dim};
  args.heads = heads;
  args.rows = rows;
  const int pages = (context + args.layout.tokens - 1) / args.layout.tokens;
  Buffer cache = backend.allocate(static_cast<size_t>(args.layout.page_bytes()) * pages);
  std::memset(cache.data(), 0, cache.bytes());
  const size_t width = size_t(heads + 2 * kv_heads) * head_dim;
  Buffer qkv = backend.allocate(4 * width * rows);
  Random random(1);
  for (size_t i = 0; i < width * rows; ++i)
    qkv.as<float>()[i] = static_cast<float>(random.normal());
  std::vector<float> cos(size_t(context) * head_dim / 2, 1.0f), sin(cos.size());
  std::vector<int32_t> table(pages);
  for (int i = 0; i < pages; ++i) table[i] = i;
  const InputSpec spec{.segments = format::whole(format::kF32, heads * head_dim)};
  Buffer y = backend.allocate(backend.activation_bytes(spec, rows));
  const SequenceStep step{0, rows, context - rows, table.data()};
  args.qkv = qkv.as<float>();
  args.pages = cache.data();
  args.rope_cos = cos.data();
  args.rope_sin = sin.data();
  args.sequences = {&step, 1};
  args.y = {y.data(), &spec, rows};
  const double keys = double(rows) * (context - rows) + double(rows) * (rows + 1) / 2;
  const double rate =
      rates({[&] { backend.attention(args); }}, 4.0 * head_dim * heads * keys, settings)[0];
  fmt::print("attention {:4} heads {:2}/{:2} x {:3} context {:4} rows {:4} | {:6.1f}\n",
             format::name(kind), heads, kv_heads, head_dim, context, rows, rate);
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  Settings settings;
  if (argc > 2) settings.threads = std::atoi(argv[2]);
  if (argc > 3) settings.rounds = std::atoi(argv[3]);
  settings.cpu_time = argc > 4 && std::string(argv[4]) == "cpu";
  Executor executor({.threads = settings.threads, .pin = true});
  const auto backend = make_cpu_backend({.executor = &executor, .isa = argc > 1 ? argv[1] : ""});
  openblas_set_num_threads(settings.threads);
  fmt::print("{}; GFLOP/s\n", backend->description());
  for (const auto& [n, k] : {std::pair{512, 512}, {1408, 512}, {512, 1408}, {4096, 4096}})
    for (const int m : {1, 8, 128, 2048}) bench_linear(*backend, settings, m, n, k);
  for (const auto kind : {format::KvKind::kF32, format::KvKind::kF16, format::KvKind::kInt8,
                          format::KvKind::kInt4, format::KvKind::kInt8Int4}) {
    bench_attention(*backend, settings, kind, 8, 8, 64, 2048, 2048);
    bench_attention(*backend, settings, kind, 8, 4, 64, 2048, 2048);
    bench_attention(*backend, settings, kind, 16, 4, 128, 2048, 2048);
    bench_attention(*backend, settings, kind, 8, 4, 64, 2048, 1);
  }
  return 0;
}

}  // namespace
}  // namespace atom::backend

int main(int argc, char** argv) { return atom::backend::run(argc, argv); }
