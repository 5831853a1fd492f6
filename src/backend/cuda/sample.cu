// Ids and log-probabilities from logits; a block takes a row.
//
// Ids are ranked by a key: the logit in an order-preserving code, descending, then the id. "The ids down to which the
// mass reaches a target" is found without sorting all: among bins of the distance from the largest logit, then among the ids of
// one bin; where these are many, by the key's eight bytes in turn. Masses are integers, exp(..) in units of 2^-40 of the
// most likely id, so that their sums do not depend on the order of the atomic additions. They are computed where they are
// needed: kept, they would take twice the logits' memory and more time than exp(..) does.
#include "backend/cuda/numbers.cuh"
#include "backend/cuda/tasks.h"
#include "backend/cuda/team.cuh"

namespace atom::backend::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / kWarp;
constexpr int kBins = 512, kByteBins = 256;
// A mass, at most 2^40, in three parts, whose sums over a vocabulary fit into 32 bits: shared memory adds these by itself.
constexpr int kPartBits = 14, kParts = 3;
constexpr int kMostPartIds = 1 << (32 - kPartBits);
constexpr int kMostCandidates = 2048;
constexpr float kSpan = 28;  // temperatures from the largest logit to where masses are 0: 40 ln 2
constexpr double kUnit = 1099511627776.0;  // 2^40

struct Shared {
  union {
    unsigned long long bins[kByteBins];
    uint32_t parts[kParts][kBins];
  };
  uint64_t keys[kMostCandidates], measures[kMostCandidates];
  uint64_t integers[kWarps];
  double floats[kWarps];
  float smallest[kWarps];
  uint64_t prefix, below;
  double target;
  int bin, candidates;
};

struct Row {
  const float* logits;
  int size;
  double largest = 0, temperature = 1, min_p = 0;

  __device__ uint64_t mass(float logit) const {
    double distance = static_cast<double>(logit) - largest;
    if (temperature != 1.0) distance /= temperature;
    if (!(distance >= -kSpan)) return 0;
    const double weight = exp(distance);
    return weight < min_p ? 0 : static_cast<uint64_t>(weight * kUnit);
  }

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

// The first key, in order, down to which the measure of the keys up to `limit` reaches the target.
struct Search {
  uint64_t limit;
  double target;  // ids, or the share of the mass of all keys up to `limit`
  bool beyond;    // exceeds the target, rather than reaches it
  bool counts;    // every id measures 1, rather than its mass

  __device__ double target_of(uint64_t all) const {
    return counts ? target : target * static_cast<double>(all);
  }
  __device__ bool reached(uint64_t measure, double of) const {
    const auto value = static_cast<double>(measure);
    return beyond ? value > of : value >= of;
  }
  __device__ uint64_t measure(const Row& row, float logit) const {
    return counts ? 1 : row.mass(logit);
  }
};

// By thread 0: the bin in which the target is reached, or the last one. The first bins hold all keys.
__device__ void pick_bin(const Search& search, int shift, Shared& s) {
  if (shift == 56) {
    uint64_t all = 0;
    for (const unsigned long long bin : s.bins) all += bin;
    s.target = search.target_of(all);
  }
  uint64_t running = s.below, below = s.below, digit = 0;
  for (int bin = 0; bin < kByteBins; ++bin) {
    if (s.bins[bin] == 0) continue;
    digit = static_cast<uint64_t>(bin);
    below = running;
    running += s.bins[bin];
    if (search.reached(running, s.target)) break;
  }
  s.prefix |= digit << shift;
  s.below = below;
}

__device__ uint64_t find_key_by_bytes(const Row& row, const Search& search, Shared& s) {
  const int tid = static_cast<int>(threadIdx.x);
  if (tid == 0) s.prefix = s.below = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int bin = tid; bin < kByteBins; bin += kThreads) s.bins[bin] = 0;
    __syncthreads();
    const uint64_t prefix = s.prefix;
    row.each([&](int id, float logit) {
      const uint64_t key = Row::key(id, logit);
      if (key > search.limit || (shift < 56 && (key ^ prefix) >> (shift + 8) != 0)) return;
      const uint64_t measure = search.measure(row, logit);
      if (measure != 0)
        atomicAdd(&s.bins[(key >> shift) & (kByteBins - 1)],
                  static_cast<unsigned long long>(measure));
    });
    __syncthreads();
    if (tid == 0) pick_bin(search, shift, s);
    __syncthreads();
  }
  const uint64_t key = s.prefix;
  __syncthreads();
  return key;
}

// Bins of equal width from the largest logit down, in the order of keys: rounding is monotonic.
struct Bins {
  float largest, per_unit;

  __device__ int of(float logit) const {
    return static_cast<int>(fminf((largest - logit) * per_unit, kBins - 1.0f));
  }
};

// By the first warp: the bin in which the target is reached, or the last one with ids.
__device__ void pick_part_bin(const Search& search, Shared& s) {
  constexpr int kEach = kBins / kWarp;
  const int lane = static_cast<int>(threadIdx.x);
  uint64_t own[kEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int bin = lane * kEach + i;
    own[i] = 0;
    for (int part = 0; part < kParts; ++part)
      own[i] += static_cast<uint64_t>(s.parts[part][bin]) << (kPartBits * part);
    sum += own[i];
  }
  uint64_t before = sum;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const uint64_t other = __shfl_up_sync(~0u, before, distance);
    if (lane >= distance) before += other;
  }
  const double target = search.target_of(__shfl_sync(~0u, before, kWarp - 1));
  uint64_t running = before - sum, below = running;
  int last = -1;  // of the lane's bins with ids: the first that reaches the target, or the last
  bool reaches = false;
#pragma unroll
  for (int i = 0; i < kEach; ++i)
    if (own[i] != 0 && !reaches) {
      last = lane * kEach + i;
      below = running;
      running += own[i];
      reaches = search.reached(running, target);
    }
  const unsigned reached = __ballot_sync(~0u, reaches), filled = __ballot_sync(~0u, last >= 0);
  if (filled == 0) {
    if (lane == 0) s.bin = -1;
    return;
  }
  const int winner =
      reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : 31 - __clz(static_cast<int>(filled));
  if (lane == winner) s.bin = last, s.below = below, s.target = target;
}

// Whether the ids of the picked bin are few enough to be among `keys` and `measures`.
__device__ bool collect(const Row& row, const Search& search, const Bins& bins, Shared& s) {
  if (threadIdx.x == 0) s.candidates = 0;
  __syncthreads();
  const int picked = s.bin;
  row.each([&](int id, float logit) {
    if (bins.of(logit) != picked) return;
    const uint64_t key = Row::key(id, logit);
    const uint64_t measure = search.measure(row, logit);
    if (key > search.limit || measure == 0) return;
    const int place = atomicAdd(&s.candidates, 1);
    if (place < kMostCandidates) s.keys[place] = key, s.measures[place] = measure;
  });
  __syncthreads();
  return s.candidates <= kMostCandidates;
}

__device__ uint64_t find_key(const Row& row, const Search& search, const Bins& bins, Shared& s) {
  if (row.size > kMostPartIds) return find_key_by_bytes(row, search, s);
  const int tid = static_cast<int>(threadIdx.x);
  for (int i = tid; i < kParts * kBins; i += kThreads) s.parts[i / kBins][i % kBins] = 0;
  __syncthreads();
  row.each([&](int id, float logit) {
    if (Row::key(id, logit) > search.limit) return;
    const uint64_t measure = search.measure(row, logit);
    const int bin = bins.of(logit);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const auto bits = static_cast<uint32_t>(measure >> (kPartBits * part)) &
                        (part + 1 < kParts ? (1u << kPartBits) - 1 : ~0u);
      if (bits != 0) atomicAdd(&s.parts[part][bin], bits);
    }
  });
  __syncthreads();
  if (tid < kWarp) pick_part_bin(search, s);
  __syncthreads();
  if (s.bin < 0 || !collect(row, search, bins, s)) {
    __syncthreads();
    return find_key_by_bytes(row, search, s);
  }
  // Each candidate's running measure, from all that come before it.
  uint64_t reaching = ~uint64_t{0}, last = 0;
  const int count = s.candidates;
  for (int i = tid; i < count; i += kThreads) {
    const uint64_t key = s.keys[i];
    uint64_t running = s.below;
    for (int j = 0; j < count; ++j) running += s.keys[j] <= key ? s.measures[j] : 0;
    if (search.reached(running, s.target)) reaching = min(reaching, key);
    last = max(last, key);
  }
  reaching = block_reduce(reaching, Min(), s.integers);
  last = ~block_reduce(~last, Min(), s.integers);
  __syncthreads();
  return reaching != ~uint64_t{0} ? reaching : last;
}

// From the largest logit to the smallest finite one, but no further than masses go: flat logits fill the bins, too.
__device__ Bins bins_of(float smallest, float largest, float temperature) {
  const float span = fminf(kSpan * temperature, largest - smallest);
  return {largest, kBins / fmaxf(span, 1e-30f)};
}

// min_p and top_k, then top_p of what they left, then the id at which the running mass exceeds its share `uniform`.
__device__ int draw(Row row, const DrawRule& rule, float smallest, float largest, Shared& s) {
  row.largest = static_cast<double>(largest);
  row.temperature = static_cast<double>(rule.temperature);
  row.min_p = static_cast<double>(rule.min_p);
  const Bins bins = bins_of(smallest, largest, rule.temperature);
  uint64_t limit = ~uint64_t{0};
  if (rule.top_k > 0 && rule.top_k < row.size)
    limit = find_key(row, {limit, static_cast<double>(rule.top_k), false, true}, bins, s);
  if (rule.top_p < 1.0f)
    limit = find_key(row, {limit, static_cast<double>(rule.top_p), false, false}, bins, s);
  return id_of(find_key(row, {limit, rule.uniform, true, false}, bins, s));
}

__device__ double log_probability(const Row& row, int target, float largest, Shared& s) {
  double mass = 0;
  row.each([&](int, float logit) {
    mass += exp(static_cast<double>(logit) - static_cast<double>(largest));
  });
  mass = block_reduce(mass, Sum(), s.floats);
  return static_cast<double>(row.logits[target]) - static_cast<double>(largest) - log(mass);
}

__global__ void __launch_bounds__(kThreads, 1) sample_kernel(SampleTask t) {
  __shared__ Shared s;
  const int64_t at = blockIdx.x;
  const Row row{t.logits + at * t.vocabulary, t.vocabulary};
  // From host memory, so asked for early.
  const DrawRule rule = t.rules == nullptr ? DrawRule{} : t.rules[at];
  uint64_t first = ~uint64_t{0};
  bool nan = false;
  float smallest = __uint_as_float(kInfinityBits);
  row.each([&](int id, float logit) {
    nan |= isnan(logit);
    first = min(first, Row::key(id, logit));
    if (!isinf(logit)) smallest = fminf(smallest, logit);
  });
  nan = __syncthreads_or(nan) != 0;
  first = block_reduce(first, Min(), s.integers);
  const float largest = row.logits[id_of(first)];
  if (t.rules != nullptr) {
    int id = id_of(first);
    if (nan)
      id = -1;
    else if (rule.temperature != 0.0f)
      id = isinf(largest) ? -1  // infinite: no distribution
                          : draw(row, rule, block_reduce(smallest, Min(), s.smallest), largest, s);
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
