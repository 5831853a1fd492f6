// Checks the decode kernel on one GPU, apart from the test suite: against the plain kernel (launch_attend) on the same
// pages, and on short contexts against sums in f64 on the host. Needs nvcc and the kernels' sources only.
//   decode_check [tiny] [FILTER]      a line a kind; tiny: few steps, for compute-sanitizer; exit status 1: something differs
//
// Tokens behind a context, pages of nobody, y and the scratch memory hold NaN, so that what is read or left by mistake
// shows.
#include "tests/backend/cuda/decode_step.cuh"

namespace atom::bench {
namespace {

int cases = 0, failures = 0;

// Sums in f64 over what is stored, as the kernels see it.
class Host {
 public:
  explicit Host(const Step& step) : step_(step), t_(step.task()), stored_(step.stored()) {}

  // The largest error of `y` over its bound.
  double worst(const std::vector<float>& y) const {
    double worst = 0;
    for (int row = 0; row < t_.rows; ++row)
      for (int head = 0; head < t_.heads; ++head)
        worst =
            std::max(worst, worst_of(row, head, y.data() + (row * t_.heads + head) * t_.head_dim));
    return worst;
  }

 private:
  static double half(const uint8_t* p) {
    __half h;
    std::memcpy(&h, p, 2);
    return double{__half2float(h)};
  }
  // A vector's values, and |lo| + step * code for the bound.
  struct Vector {
    std::vector<double> values, sizes;
  };
  Vector load(int side, int row, int kv_head, int position) const {
    const int newest = step_.contexts()[static_cast<size_t>(row)] - 1;
    const bool own = t_.has_open_page != 0 && position / 64 == newest / 64;
    const cuda::KvView& kv = own ? t_.open : t_.cache;
    const cuda::KvSide& of = kv.side[side];
    const int64_t page = own ? row : step_.page(row, position);
    const uint8_t* base = (own ? stored_.open : stored_.pool).data() + page * kv.page_bytes +
                          of.offset + kv_head * of.head_bytes;
    const uint8_t* codes = base + position % 64 * of.row_bytes;
    const uint8_t* params = base + 64 * of.row_bytes + position % 64 * 4;
    Vector v;
    for (int i = 0; i < t_.head_dim; ++i) {
      if (of.bits == 16) {
        v.values.push_back(half(codes + 2 * i));
        v.sizes.push_back(std::abs(v.values.back()));
      } else {
        const double code = of.bits == 8 ? codes[i] : codes[i / 2] >> (4 * (i % 2)) & 15;
        v.values.push_back(half(params) + half(params + 2) * code);
        v.sizes.push_back(std::abs(half(params)) + half(params + 2) * code);
      }
    }
    return v;
  }

  double worst_of(int row, int head, const float* y) const {
    const int context = step_.contexts()[static_cast<size_t>(row)], dim = t_.head_dim;
    const int kv_head = head / (t_.heads / t_.kv_heads);
    const uint8_t* q = stored_.queries.data() + (row * t_.heads + head) * t_.query_bytes;
    float factor = 0;
    std::memcpy(&factor, q + 2 * dim, 4);
    std::vector<double> scores, sum(static_cast<size_t>(dim)), magnitude(sum.size());
    double most = -INFINITY, score_size = 0, mass = 0;
    for (int p = 0; p < context; ++p) {
      const Vector k = load(0, row, kv_head, p);
      double score = 0, size = 0;
      for (size_t i = 0; i < k.values.size(); ++i) {
        score += half(q + 2 * i) * k.values[i];
        size += std::abs(half(q + 2 * i)) * k.sizes[i];
      }
      scores.push_back(score * factor * 0.6931471805599453);
      most = std::max(most, scores.back());
      score_size = std::max(score_size, size * factor);
    }
    for (int p = 0; p < context; ++p) {
      const double weight = std::exp(scores[static_cast<size_t>(p)] - most);
      const Vector v = load(1, row, kv_head, p);
      mass += weight;
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] += weight * v.values[i];
        magnitude[i] += weight * v.sizes[i];
      }
    }
    // Scores: sums of exact products in f32. Weights: f16, one rounding, those under 2^-14 of the largest step to 2^-25
    // of it. Mass and sums in f32.
    const double relative =
        2 * (dim + 8) * 0x1p-24 * score_size + 0x1p-11 + (context + 64) * 0x1p-24;
    double worst = 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      const double error = std::abs(double{y[i]} - sum[i] / mass);
      const double bound = relative * magnitude[i] / mass + context * 0x1p-24 * 16;
      worst = std::isfinite(y[i]) ? std::max(worst, error / bound) : INFINITY;
    }
    return worst;
  }

  const Step& step_;
  const cuda::AttentionTask& t_;
  Step::Stored stored_;
};

void check(const DecodeKind& kind, const char* filter, int processors, bool tiny) {
  if (filter != nullptr && kind.name().find(filter) == std::string::npos) return;
  std::vector<std::vector<int>> sets = {
      {1},
      {2, 1, 64, 65, 33, 32, 97, 128},
      {130, 7, 64, 64, 300, 2048, 1, 999, 513, 31, 777, 64, 65, 66, 4000, 12},
      std::vector<int>(40, 700),
      {kMostContext},
      {kMostContext - 3, 63, 15000}};
  std::mt19937 random(5);
  sets.emplace_back();
  for (int i = 0; i < 24; ++i) sets.back().push_back(1 + static_cast<int>(random() % 1500));
  if (tiny) sets = {{2, 1, 64, 65, 33}, {700, 130, 31}};
  double worst = 0, host = 0;
  int runs = 0;
  for (size_t i = 0; i < sets.size(); ++i)
    for (const float size : {1.0f, 8.0f}) {
      if (size > 1 && i > 3) continue;
      Step step(kind, sets[i], size);
      std::vector<float> y;
      for (const int blocks : {processors, 1, 7, 61})
        for (const int split : {0, 5}) {
          if (blocks == 1 && i > 3) continue;
          if (tiny && (blocks == 1 || blocks == 61)) continue;
          const double error = step.run(blocks, split, blocks == 7, &y);
          ++runs, ++cases;
          // q and the weights are rounded to f16, 2^-11 each: with both the error is about 2^-11.5 of the result where
          // the scores are of size 1, and grows with them.
          const double most = size > 1 ? 1e-2 : 2e-3;
          if (!(error < most)) {
            ++failures;
            std::printf("  BAD %s set %zu size %g blocks %d split %d: %g\n", kind.name().c_str(), i,
                        size, blocks, split, error);
          }
          if (size == 1) worst = std::max(worst, error);
          if (i < 2 && blocks == 7) host = std::max(host, Host(step).worst(y));
        }
    }
  if (!(host < 1)) ++failures;
  std::printf("%-32s %3d runs, relative error %.1e, %.2f of the bound%s\n", kind.name().c_str(),
              runs, worst, host, host < 1 ? "" : "  BAD");
  std::fflush(stdout);
}

// With `split` a row's bits do not depend on the others of the step.
void check_invariance(int processors) {
  const DecodeKind kind{8, 2, 128, 4, 4, false};
  Step one(kind, {3000}, 1), many(kind, {3000, 500, 64, 2000, 9000}, 1);
  std::vector<float> a, b;
  one.run(processors, 8, false, &a);
  many.run(processors, 8, false, &b);
  const bool same = std::memcmp(a.data(), b.data(), 8 * 128 * sizeof(float)) == 0;
  std::printf("independent of the batch: %s\n", same ? "yes" : "NO");
  ++cases, failures += !same;
}

void check_replay(int processors) {
  Step few({8, 2, 128, 4, 4, false}, {kMostContext, 64}, 1);
  Step many({32, 8, 128, 4, 4, false}, {3000, 500, 64, 2000, 9000, 1, 777}, 1);
  const bool same = few.replays(processors) && many.replays(processors);
  std::printf("graph of a launch with other plans: %s\n", same ? "same bits" : "DIFFERS");
  ++cases, failures += !same;
}

}  // namespace
}  // namespace atom::bench

int main(int argc, char** argv) {
  using namespace atom::bench;
  cudaDeviceProp properties;
  ATOM_REQUIRE(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s\n", properties.name);
  const bool tiny = argc > 1 && std::strcmp(argv[1], "tiny") == 0;
  const char* filter = argc > 1 + tiny ? argv[1 + tiny] : nullptr;
  const std::vector<std::pair<int, int>> heads = {{2, 2}, {8, 2}, {8, 1}, {3, 1}, {20, 1}};
  for (const DecodeKind& kind :
       decode_kinds(tiny ? std::vector<std::pair<int, int>>{{8, 2}, {3, 1}} : heads))
    check(kind, filter, properties.multiProcessorCount, tiny);
  check_invariance(properties.multiProcessorCount);
  if (!tiny) check_replay(properties.multiProcessorCount);
  std::printf("decode_check: %d cases, %d failures\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
