// Ids and log-probabilities from logits; a block takes a row.
//
// Ids are ranked by a key: the logit in an order-preserving code, descending, then the id. "The ids down to which the
// mass reaches a target" is found without sorting, by the key's eight bytes in turn. Masses are integers, exp(..) in
// units of 2^-40 of the most likely id, so that their sums do not depend on the order of the atomic additions.
#include "backend/cuda/numbers.cuh"
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / kWarp;
constexpr int kBins = 256;

struct Shared {
  unsigned long long bins[kBins];
  uint64_t integers[kWarps];
  double floats[kWarps];
  uint64_t prefix, below;
};

struct Row {
  const float* logits;
  uint64_t* masses;
  int size;

  // Smaller is more likely; ties: the lower id.
  static __device__ uint64_t key(int id, float logit) {
    const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 is 0
    const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return uint64_t{~ascending} << 32 | static_cast<uint32_t>(id);
  }

  // Calls of(id, logit) for the ids of this thread, 16 loaded at a time where the row allows it: one block has to hide
  // the latency of a whole vocabulary.
  template <typename Of>
  __device__ __forceinline__ void each(Of of) const {
    int done = 0;
    if (reinterpret_cast<uintptr_t>(logits) % sizeof(float4) == 0) {
      done = each_fours<4>(done, of);
      done = each_fours<1>(done, of);
    }
    for (int id = done + static_cast<int>(threadIdx.x); id < size; id += kThreads)
      of(id, logits[id]);
  }
  template <int kLoads, typename Of>
  __device__ __forceinline__ int each_fours(int done, Of of) const {
    constexpr int kSpan = 4 * kThreads;
    const int mine = 4 * static_cast<int>(threadIdx.x);
    for (; done + kLoads * kSpan <= size; done += kLoads * kSpan) {
      float4 v[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i)
        v[i] = *reinterpret_cast<const float4*>(logits + done + i * kSpan + mine);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int id = done + i * kSpan + mine;
        of(id, v[i].x), of(id + 1, v[i].y), of(id + 2, v[i].z), of(id + 3, v[i].w);
      }
    }
    return done;
  }
};
__device__ int id_of(uint64_t key) { return static_cast<int>(static_cast<uint32_t>(key)); }

// The first key, in order, down to which the measure of the keys up to `limit` reaches `target`.
struct Search {
  uint64_t limit;
  double target;
  bool beyond;  // exceeds the target, rather than reaches it
  bool counts;  // every id measures 1, rather than its mass

  __device__ bool reached(uint64_t measure) const {
    const auto value = static_cast<double>(measure);
    return beyond ? value > target : value >= target;
  }
};

// By thread 0: the bin in which the target is reached, or the last one.
__device__ void pick_bin(const Search& search, int shift, Shared& s) {
  uint64_t running = s.below, below = s.below, digit = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    if (s.bins[bin] == 0) continue;
    digit = static_cast<uint64_t>(bin);
    below = running;
    running += s.bins[bin];
    if (search.reached(running)) break;
  }
  s.prefix |= digit << shift;
  s.below = below;
}

__device__ uint64_t find_key(const Row& row, const Search& search, Shared& s) {
  const int tid = static_cast<int>(threadIdx.x);
  if (tid == 0) s.prefix = s.below = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int bin = tid; bin < kBins; bin += kThreads) s.bins[bin] = 0;
    __syncthreads();
    const uint64_t prefix = s.prefix;
    row.each([&](int id, float logit) {
      const uint64_t key = Row::key(id, logit);
      if (key > search.limit || (shift < 56 && (key ^ prefix) >> (shift + 8) != 0)) return;
      const uint64_t measure = search.counts ? 1 : row.masses[id];
      if (measure != 0)
        atomicAdd(&s.bins[(key >> shift) & (kBins - 1)], static_cast<unsigned long long>(measure));
    });
    __syncthreads();
    if (tid == 0) pick_bin(search, shift, s);
    __syncthreads();
  }
  const uint64_t key = s.prefix;
  __syncthreads();
  return key;
}

__device__ uint64_t mass_up_to(const Row& row, uint64_t limit, Shared& s) {
  uint64_t mass = 0;
  row.each([&](int id, float logit) {
    if (Row::key(id, logit) <= limit) mass += row.masses[id];
  });
  return block_reduce(mass, Sum(), s.integers);
}

// min_p and top_k, then top_p of what they left, then the id at which the running mass exceeds uniform * mass.
__device__ int draw(const Row& row, const DrawRule& rule, float largest, Shared& s) {
  constexpr double kUnit = 1099511627776.0;  // 2^40
  row.each([&](int id, float logit) {
    const double distance = static_cast<double>(logit) - static_cast<double>(largest);
    const double weight = exp(distance / static_cast<double>(rule.temperature));
    row.masses[id] =
        weight < static_cast<double>(rule.min_p) ? 0 : static_cast<uint64_t>(weight * kUnit);
  });
  __syncthreads();
  uint64_t limit = ~uint64_t{0};
  if (rule.top_k > 0 && rule.top_k < row.size)
    limit = find_key(row, {limit, static_cast<double>(rule.top_k), false, true}, s);
  auto mass = static_cast<double>(mass_up_to(row, limit, s));
  if (rule.top_p < 1.0f) {
    limit = find_key(row, {limit, static_cast<double>(rule.top_p) * mass, false, false}, s);
    mass = static_cast<double>(mass_up_to(row, limit, s));
  }
  return id_of(find_key(row, {limit, rule.uniform * mass, true, false}, s));
}

__device__ double log_probability(const Row& row, int target, float largest, Shared& s) {
  double mass = 0;
  row.each([&](int, float logit) {
    mass += exp(static_cast<double>(logit) - static_cast<double>(largest));
  });
  mass = block_reduce(mass, Sum(), s.floats);
  return static_cast<double>(row.logits[target]) - static_cast<double>(largest) - log(mass);
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleTask t) {
  __shared__ Shared s;
  const int64_t at = blockIdx.x;
  const Row row{t.logits + at * t.vocabulary,
                t.masses == nullptr ? nullptr : t.masses + at * t.vocabulary, t.vocabulary};
  // From host memory, so asked for early.
  const DrawRule rule = t.rules == nullptr ? DrawRule{} : t.rules[at];
  uint64_t first = ~uint64_t{0};
  bool nan = false;
  row.each([&](int id, float logit) {
    nan |= isnan(logit);
    first = min(first, Row::key(id, logit));
  });
  nan = __syncthreads_or(nan) != 0;
  first = block_reduce(first, Min(), s.integers);
  const float largest = row.logits[id_of(first)];
  if (t.rules != nullptr) {
    int id = id_of(first);
    if (nan)
      id = -1;
    else if (rule.temperature != 0.0f)
      id = isinf(largest) ? -1 : draw(row, rule, largest, s);  // infinite: no distribution
    if (threadIdx.x == 0) {
      t.ids[at] = id;
      if (t.sampled != nullptr) t.sampled[at] = id;
    }
  }
  if (t.targets != nullptr) {
    const double score = log_probability(row, t.targets[at], largest, s);
    if (threadIdx.x == 0) t.log_probabilities[at] = nan ? static_cast<double>(quiet_nan()) : score;
  }
}

}  // namespace

Status launch_sample(const SampleTask& task, Stream stream) {
  if (task.rows == 0) return 0;
  sample_kernel<<<task.rows, kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace atom::backend::cuda
