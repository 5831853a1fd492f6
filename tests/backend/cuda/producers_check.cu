// Compares the Hopper producers with the plain kernels on a device, record by record and bit by bit, over formats,
// sizes, orders, transforms and rows that quantizers tend to get wrong; and the quick silu with its definition for every
// f32. Exit code 1 when anything differs.
// Gates from f16 are compared with the plain ones from the same values in f32.
//   producers_check [norm] [rows] [gate] [silu] [tiny]      all of them without words; tiny: last, for compute-sanitizer
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cuda/hopper_half_linear.h"
#include "backend/cuda/hopper_silu.cuh"
#include "bench/cuda/producer_data.cuh"

namespace atom::bench {
namespace {

using hopper::ProduceTask;
using hopper::Source;

constexpr uint8_t kSentinel = 0xee;
int failures = 0, compared = 0, left_out = 0, asked = 0, with_halves = 0;
int thinning = 1;  // one case of so many

// Value i of row `row`, of `width`.
float hard_value(int row, int i, int width) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float x = normal_at(11 + row, i);
  switch (row % 16) {
    case 1:
      return i % 2 == 0 ? 0.0f : -0.0f;
    case 2:  // ties of half a step
      return i % 16 == 0 ? -0.875f : static_cast<float>(i % 29 - 14) / 16.0f;
    case 3:
      return i % 16 == 0 ? 127.0f : static_cast<float>(i % 509 - 254) / 2.0f;
    case 4:
      return std::ldexp(1.5f, -(i % 2000) / 16);
    case 5:
      return i == width / 2 ? std::numeric_limits<float>::quiet_NaN() : x;
    case 6:
      return i == width - 1 ? -infinity : x;
    case 7:
      return i == 1 ? 3e38f : x;
    case 8:
      return std::ldexp(x, -140);  // subnormal
    case 9:
      return i == width - 1 ? std::ldexp(1.0f, -149) : 0.0f;
    case 10:
      return i % 50 == 7 ? 1000.0f * x : x;
    case 11:
      return std::ldexp(x, -124);
    case 12:
      return 30.0f * x;  // gates on both flat sides
    default:
      return 3.0f * x;
  }
}

// The same for rows in f16: some reach both ends of its range, one has every pattern.
uint16_t hard_half(int row, int i, int width) {
  const float x = normal_at(11 + row, i);
  const auto bits = [](float value) { return __half_as_ushort(__float2half(value)); };
  switch (row % 16) {
    case 7:
      return i == 1 ? uint16_t{0x7bff} : bits(x);  // the largest
    case 8:
      return bits(std::ldexp(x, -18));  // subnormal
    case 9:
      return i == width - 1 ? uint16_t{1} : uint16_t{0};
    case 11:
      return bits(std::ldexp(x, -12));
    case 13:
      return i % 3 == 0 ? uint16_t{0xfbff} : bits(20000.0f * x);
    case 14:
      return static_cast<uint16_t>(i * 40503 + row * 977);  // NaN among them
    case 15: {                                              // every pattern but infinity and NaN
      const uint32_t pattern = static_cast<uint32_t>(i * 40503 + row * 977) & 0xffffu;
      return static_cast<uint16_t>((pattern & 0x7c00u) == 0x7c00u ? pattern ^ 0x4000u : pattern);
    }
    default:
      return bits(hard_value(row, i, width));
  }
}

struct Buffers {
  float *x, *gain, *plain, *scratch, *ordered;
  uint16_t* x_f16;  // the values of x; null: too wide for f16
  int32_t* order;
  uint8_t *expected, *actual;
};

struct Case {
  Source source;
  RowShape shape;
  int rows, hadamard;
  bool ordered;
  float clip = 1.0f;
  bool with_table = false;
};

const int8_t* silu_offsets() {
  static int8_t* offsets = nullptr;
  if (offsets == nullptr) {
    offsets = device_array<int8_t>(hopper::kSiluOffsets);
    ATOM_REQUIRE(hopper::launch_silu_offsets(offsets, nullptr));
    ATOM_REQUIRE(cudaDeviceSynchronize());
  }
  return offsets;
}

const char* word(Source source) {
  return source == Source::kNorm ? "norm" : source == Source::kRows ? "rows" : "gate";
}

void run_plain(const Case& c, const Buffers& b, const InputView& view) {
  const float* rows = b.x;
  if (c.source == Source::kNorm) {
    cuda::NormTask t;
    t.x = b.x, t.gain = b.gain, t.epsilon = 1e-5f;
    t.rows = c.rows, t.k = c.shape.k, t.y = b.scratch;
    ATOM_REQUIRE(cuda::launch_norm(t, nullptr));
  }
  if (c.source == Source::kGate) {
    cuda::GateTask t;
    t.x = b.x, t.y = b.scratch, t.rows = c.rows, t.k = c.shape.k;
    ATOM_REQUIRE(cuda::launch_gate(t, nullptr));
  }
  if (c.source != Source::kRows) rows = b.scratch;
  cuda::QuantizeTask q;
  q.x = rows, q.order = c.ordered ? b.order : nullptr;
  q.hadamard = c.hadamard, q.clip = c.clip;
  q.ordered = c.ordered || c.hadamard != 0 ? b.ordered : nullptr;
  q.y = view;
  q.y.data = b.expected;
  ATOM_REQUIRE(cuda::launch_quantize(q, nullptr));
}

void report(const Case& c, const char* what, size_t at, size_t row_bytes) {
  if (++failures > 40) return;
  std::printf("  WRONG %s %s, k %d, %s, rows %d, hadamard %d%s, clip %g: row %zu at %zu\n", what,
              word(c.source), c.shape.k, name_of(c.shape).c_str(), c.rows, c.hadamard,
              c.ordered ? ", order" : "", c.clip, at / row_bytes, at % row_bytes);
}

void compare_bytes(const Case& c, const char* what, const void* expected, const void* actual,
                   size_t count, size_t row_bytes) {
  const std::vector<uint8_t> a = host_copy(static_cast<const uint8_t*>(expected), count),
                             b = host_copy(static_cast<const uint8_t*>(actual), count);
  if (std::memcmp(a.data(), b.data(), count) == 0) return;
  for (size_t i = 0; i < count; ++i)
    if (a[i] != b[i]) return report(c, what, i, row_bytes);
}

int multiprocessors() {
  int count = 0;
  ATOM_REQUIRE(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
  return count;
}

// The row in f16 beside its record, as launch_half_rows() makes it from the record. t: as it made the record.
void run_halves(const Case& c, const Buffers& b, ProduceTask t) {
  if (!hopper::can_produce_half(t, multiprocessors())) return;
  const size_t count = size_t{1} * c.rows * hopper::HalfRows::pitch(c.shape.k);
  hopper::HalfRows rows[2];
  for (hopper::HalfRows& r : rows) {
    r.values = device_array<uint16_t>(count);
    r.factors = device_array<float>(c.rows);
    r.rows = c.rows, r.k = c.shape.k;
    ATOM_REQUIRE(cudaMemset(r.values, kSentinel, count * sizeof(uint16_t)));
    ATOM_REQUIRE(cudaMemset(r.factors, kSentinel, c.rows * sizeof(float)));
  }
  hopper::HalfRowsTask from;
  from.x = t.y;
  from.x.data = b.expected;
  from.to = rows[0];
  ATOM_REQUIRE(hopper::launch_half_rows(from, nullptr));
  const size_t bytes = static_cast<size_t>(t.y.row_bytes) * c.rows;
  ATOM_REQUIRE(cudaMemset(b.actual, kSentinel, bytes));
  t.half = rows[1];
  ATOM_REQUIRE(hopper::launch_produce(t, nullptr));
  ATOM_REQUIRE(cudaDeviceSynchronize());
  compare_bytes(c, "record beside halves", b.expected, b.actual, bytes,
                static_cast<size_t>(t.y.row_bytes));
  compare_bytes(c, "halves", rows[0].values, rows[1].values, count * sizeof(uint16_t),
                2 * hopper::HalfRows::pitch(c.shape.k));
  compare_bytes(c, "factors of halves", rows[0].factors, rows[1].factors, c.rows * sizeof(float),
                sizeof(float));
  for (const hopper::HalfRows& r : rows) {
    ATOM_REQUIRE(cudaFree(r.values));
    ATOM_REQUIRE(cudaFree(r.factors));
  }
  ++with_halves;
}

void run(const Case& c, const Buffers& b) {
  InputView view = row_layout(c.shape, c.rows);
  const size_t bytes = static_cast<size_t>(view.row_bytes) * c.rows, guarded = bytes + 256;
  const size_t values = size_t{1} * c.rows * c.shape.k;
  ProduceTask t;
  t.source = c.source;
  t.x = b.x_f16 == nullptr ? b.x : nullptr;
  t.x_f16 = b.x_f16;
  t.silu_offsets = c.with_table ? silu_offsets() : nullptr;
  t.gain = c.source == Source::kNorm ? b.gain : nullptr;
  t.epsilon = 1e-5f;
  t.order = c.ordered ? b.order : nullptr;
  t.hadamard = c.hadamard;
  t.clip = c.clip;
  t.y = view;
  t.y.data = b.actual;
  if (!hopper::can_produce(t)) {
    ++left_out;
    return;
  }
  if (++asked % thinning != 0) return;
  ATOM_REQUIRE(cudaMemset(b.expected, kSentinel, guarded));
  run_plain(c, b, view);
  for (const int dependent : {0, 1}) {
    ATOM_REQUIRE(cudaMemset(b.actual, kSentinel, guarded));
    ATOM_REQUIRE(cudaMemset(b.plain, kSentinel, values * sizeof(float)));
    t.dependent = dependent;
    t.plain = c.source == Source::kNorm && dependent == 1 ? b.plain : nullptr;
    ATOM_REQUIRE(hopper::launch_produce(t, nullptr));
    ATOM_REQUIRE(cudaDeviceSynchronize());
    compare_bytes(c, "record", b.expected, b.actual, guarded, static_cast<size_t>(view.row_bytes));
    if (t.plain != nullptr)
      compare_bytes(c, "plain", b.scratch, b.plain, values * sizeof(float), 4 * c.shape.k);
  }
  t.plain = nullptr;
  run_halves(c, b, t);
  ++compared;
}

Buffers buffers_of(Source source, int k, int rows, bool in_f16) {
  const int width = source == Source::kGate ? 2 * k : k;
  const size_t values = size_t{1} * rows * k;
  std::vector<float> x(size_t{1} * rows * width), gain(k);
  std::vector<uint16_t> halves;
  for (int row = 0; row < rows; ++row)
    for (int i = 0; i < width; ++i) {
      const size_t at = size_t{1} * row * width + i;
      if (in_f16) halves.push_back(hard_half(row, i, width));
      x[at] = in_f16 ? __half2float(__ushort_as_half(halves[at])) : hard_value(row, i, width);
    }
  for (int i = 0; i < k; ++i) gain[i] = normal_at(7, i);
  const std::vector<int32_t> order = permutation(k, 5);
  Buffers b{device_array<float>(x.size()),
            device_array<float>(k),
            device_array<float>(values),
            device_array<float>(values),
            device_array<float>(values),
            in_f16 ? device_array<uint16_t>(x.size()) : nullptr,
            device_array<int32_t>(k),
            device_array<uint8_t>(5 * values + 65536),
            device_array<uint8_t>(5 * values + 65536)};
  const auto upload = [](void* to, const auto& from) {
    ATOM_REQUIRE(cudaMemcpy(to, from.data(), from.size() * sizeof from[0], cudaMemcpyHostToDevice));
  };
  upload(b.x, x), upload(b.gain, gain), upload(b.order, order);
  if (in_f16) upload(b.x_f16, halves);
  return b;
}

// The plain gate, from f16 and from f32.
void compare_plain_gates(const Buffers& b, int k, int rows) {
  const size_t bytes = size_t{1} * rows * k * sizeof(float);
  cuda::GateTask t;
  t.x = b.x, t.y = b.scratch, t.rows = rows, t.k = k;
  ATOM_REQUIRE(cuda::launch_gate(t, nullptr));
  t.x = nullptr, t.x_f16 = b.x_f16, t.y = b.plain;
  ATOM_REQUIRE(cuda::launch_gate(t, nullptr));
  compare_bytes({Source::kGate, {k, 0, kF32}, rows, 0, false}, "plain gate", b.scratch, b.plain,
                bytes, size_t{4} * k);
}

void run_size(Source source, int k, int rows, bool in_f16 = false) {
  const Buffers b = buffers_of(source, k, rows, in_f16);
  if (in_f16) compare_plain_gates(b, k, rows);
  const Number numbers[] = {kInt8,         kInt4, kInt4Signed, kInt4Of32, kInt4Row, kInt4RowSigned,
                            kInt4Signed64, kE2M1, kMxfp4,      kNvfp4,    kF32};
  int index = 0;
  for (const Number& number : numbers)
    for (const int kept : {0, 16, 32, 128, 256, 36})
      for (const bool ordered : {false, true}) {
        if (kept >= k) continue;
        constexpr int kBlocks[] = {0, 2, 4, 8, 16, 32, 64, 128};
        const float clip = index % 3 == 0 ? 0.9f : 1.0f;
        for (const int hadamard : {0, 128, kBlocks[index++ % 8]})
          for (const bool with_table : {false, true})
            if (in_f16 || !with_table)
              run({source, {k, kept, number}, rows, hadamard, ordered, clip, with_table}, b);
        if (kept == 32) run({source, {k, kept, number, kF32}, rows, 128, ordered, clip}, b);
      }
  for (void* memory :
       {static_cast<void*>(b.x), static_cast<void*>(b.x_f16), static_cast<void*>(b.gain),
        static_cast<void*>(b.plain), static_cast<void*>(b.scratch), static_cast<void*>(b.ordered),
        static_cast<void*>(b.order), static_cast<void*>(b.expected), static_cast<void*>(b.actual)})
    ATOM_REQUIRE(cudaFree(memory));
}

// wrong[0]: how many differ; [1]: the bits of one of them; [2]: how many are left to the definition.
__global__ void silu_kernel(uint64_t end, uint64_t stride, uint32_t* wrong) {
  constexpr int kCount = 16;
  const uint64_t threads = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x; i * stride < end;
       i += threads * kCount) {
    float x[kCount], quick[kCount / 4][4];
    for (int j = 0; j < kCount; ++j)
      x[j] = quick[j / 4][j % 4] =
          __uint_as_float(static_cast<uint32_t>((i + threads * j) * stride));
    const uint32_t left = cuda::silu_but(quick);
    for (int j = 0; j < kCount; ++j) {
      const float defined = cuda::silu_of_f64(x[j]), got = quick[j / 4][j % 4];
      if ((left >> j & 1u) != 0) atomicAdd(wrong + 2, 1u);
      if ((left >> j & 1u) != 0 || __float_as_uint(got) == __float_as_uint(defined)) continue;
      atomicAdd(wrong, 1u);
      wrong[1] = __float_as_uint(x[j]);
    }
  }
}
// The same of f16, by the table.
__global__ void half_silu_kernel(const int8_t* offsets, uint32_t* wrong) {
  const uint32_t bits = blockIdx.x * blockDim.x + threadIdx.x;
  if (bits >= hopper::kSiluComputed) return;
  const float x = __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
  const float defined = cuda::silu_of_f64(x), got = cuda::silu_by_offset(x, offsets[bits]);
  if (isnan(defined) ? isnan(got) : __float_as_uint(got) == __float_as_uint(defined)) return;
  atomicAdd(wrong, 1u);
  wrong[1] = bits;
}
void run_half_silu() {
  auto* wrong = device_array<uint32_t>(2);
  half_silu_kernel<<<256, 256>>>(silu_offsets(), wrong);
  ATOM_REQUIRE(cudaGetLastError());
  const std::vector<uint32_t> result = host_copy(wrong, 2);
  const std::vector<int8_t> offsets = host_copy(silu_offsets(), hopper::kSiluComputed);
  if (result[0] != 0) ++failures;
  std::printf("silu of f16: %u of %d values differ%s (0x%04x), offsets from %d to %d\n", result[0],
              hopper::kSiluComputed, result[0] != 0 ? ": WRONG" : "", result[1],
              *std::min_element(offsets.begin(), offsets.end()),
              *std::max_element(offsets.begin(), offsets.end()));
}
void run_silu(uint64_t stride) {
  auto* wrong = device_array<uint32_t>(3);
  silu_kernel<<<2048, 256>>>(uint64_t{1} << 32, stride, wrong);
  ATOM_REQUIRE(cudaGetLastError());
  const std::vector<uint32_t> result = host_copy(wrong, 3);
  if (result[0] != 0) ++failures;
  std::printf("silu: %u of 2^32 / %llu values differ%s, %u are left to the definition\n", result[0],
              static_cast<unsigned long long>(stride), result[0] != 0 ? ": WRONG" : "", result[2]);
  if (result[0] != 0) std::printf("  one of them: 0x%08x\n", result[1]);
}

}  // namespace
}  // namespace atom::bench

int main(int count, char** words) {
  using namespace atom::bench;
  const bool tiny = count > 1 && std::strcmp(words[count - 1], "tiny") == 0;  // few sizes and cases
  if (tiny) --count, thinning = 7;
  const auto has = [&](const char* word) {
    bool any = count == 1;
    for (int i = 1; i < count; ++i) any |= std::strcmp(words[i], word) == 0;
    return any;
  };
  const int widths[] = {4, 16, 72, 128, 132, 200, 384, 1000, 4096, 5120, 8192, 16384};
  const int gates[] = {4, 72, 128, 200, 256, 640, 1000, 4096, 11008, 14336, 28672};
  for (const Source source : {Source::kNorm, Source::kRows})
    if (has(word(source)))
      for (const int k : widths)
        if (!tiny || k == 4 || k == 200 || k == 4096) run_size(source, k, 33);
  if (has("gate"))
    for (const int k : gates)
      for (const int rows : {17, 150})
        for (const bool in_f16 : {false, true})
          if (!tiny || k == 72 || (k == 11008 && rows == 17))
            run_size(Source::kGate, k, k > 4096 ? rows / 3 + 100 * (rows > 100) : rows, in_f16);
  if (has("silu") || has("gate")) run_half_silu();
  if (has("silu")) run_silu(tiny ? 65537 : 1);
  std::printf(
      "producers_check: %d cases, %d of them in f16 too, %d left to the plain kernels, %d "
      "failures\n",
      compared, with_halves, left_out, failures);
  return failures == 0 ? 0 : 1;
}
