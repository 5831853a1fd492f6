// Compares the Hopper producers with the plain kernels on a device, record by record and bit by bit, over formats,
// sizes, orders, transforms and rows that quantizers tend to get wrong; and the quick silu with its definition for every
// f32. Exit code 1 when anything differs.
//   producers_check [norm] [rows] [gate] [silu]      all of them without words
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cuda/hopper_silu.cuh"
#include "bench/cuda/producer_data.cuh"

namespace atom::bench {
namespace {

using hopper::ProduceTask;
using hopper::Source;

constexpr uint8_t kSentinel = 0xee;
int failures = 0, compared = 0, left_out = 0;

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

struct Buffers {
  float *x, *gain, *plain, *scratch, *ordered;
  int32_t* order;
  uint8_t *expected, *actual;
};

struct Case {
  Source source;
  RowShape shape;
  int rows, hadamard;
  bool ordered;
  float clip = 1.0f;
};

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

void run(const Case& c, const Buffers& b) {
  InputView view = row_layout(c.shape, c.rows);
  const size_t bytes = static_cast<size_t>(view.row_bytes) * c.rows, guarded = bytes + 256;
  const size_t values = size_t{1} * c.rows * c.shape.k;
  ProduceTask t;
  t.source = c.source;
  t.x = b.x;
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
  ++compared;
}

Buffers buffers_of(Source source, int k, int rows) {
  const int width = source == Source::kGate ? 2 * k : k;
  const size_t values = size_t{1} * rows * k;
  std::vector<float> x(size_t{1} * rows * width), gain(k);
  for (int row = 0; row < rows; ++row)
    for (int i = 0; i < width; ++i) x[size_t{1} * row * width + i] = hard_value(row, i, width);
  for (int i = 0; i < k; ++i) gain[i] = normal_at(7, i);
  const std::vector<int32_t> order = permutation(k, 5);
  Buffers b{device_array<float>(x.size()),
            device_array<float>(k),
            device_array<float>(values),
            device_array<float>(values),
            device_array<float>(values),
            device_array<int32_t>(k),
            device_array<uint8_t>(5 * values + 65536),
            device_array<uint8_t>(5 * values + 65536)};
  const auto upload = [](void* to, const auto& from) {
    ATOM_REQUIRE(cudaMemcpy(to, from.data(), from.size() * sizeof from[0], cudaMemcpyHostToDevice));
  };
  upload(b.x, x), upload(b.gain, gain), upload(b.order, order);
  return b;
}

void run_size(Source source, int k, int rows) {
  const Buffers b = buffers_of(source, k, rows);
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
          run({source, {k, kept, number}, rows, hadamard, ordered, clip}, b);
        if (kept == 32) run({source, {k, kept, number, kF32}, rows, 128, ordered, clip}, b);
      }
  for (void* memory :
       {static_cast<void*>(b.x), static_cast<void*>(b.gain), static_cast<void*>(b.plain),
        static_cast<void*>(b.scratch), static_cast<void*>(b.ordered), static_cast<void*>(b.order),
        static_cast<void*>(b.expected), static_cast<void*>(b.actual)})
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
  const auto has = [&](const char* word) {
    bool any = count == 1;
    for (int i = 1; i < count; ++i) any |= std::strcmp(words[i], word) == 0;
    return any;
  };
  const int widths[] = {4, 16, 72, 128, 132, 200, 384, 1000, 4096, 5120, 8192, 16384};
  const int gates[] = {4, 72, 128, 200, 1000, 4096, 11008, 14336, 28672};
  for (const Source source : {Source::kNorm, Source::kRows})
    if (has(word(source)))
      for (const int k : widths) run_size(source, k, 33);
  if (has("gate"))
    for (const int k : gates)
      for (const int rows : {17, 150})
        run_size(Source::kGate, k, k > 4096 ? rows / 3 + 100 * (rows > 100) : rows);
  if (has("silu")) run_silu(1);
  std::printf("producers_check: %d cases, %d left to the plain kernels, %d failures\n", compared,
              left_out, failures);
  return failures == 0 ? 0 : 1;
}
