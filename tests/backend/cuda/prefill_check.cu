// Checks the prefill kernel on one GPU, apart from the test suite: against the plain kernel (launch_attend) on the same
// pages, and on short contexts against sums in f64 on the host. Needs nvcc and the kernels' sources only.
//   prefill_check [tiny] [FILTER]      a line a kind; tiny: few steps, for compute-sanitizer; exit status 1: something differs
//
// Tokens behind a sequence, pages of nobody, what the step stores and y hold NaN before, so that what is read or left by
// mistake shows.
#include "tests/backend/cuda/prefill_step.cuh"

namespace atom::bench {
namespace {

int cases = 0, failures = 0;

// Sums in f64 over what is stored, as the kernels see it.
class Host {
 public:
  explicit Host(const PrefillStep& step) : step_(step), t_(step.task()), stored_(step.stored()) {}

  // The largest error of `y` over its bound, of the first and the last rows of each chunk and every fifth between.
  double worst(const std::vector<float>& y) const {
    double worst = 0;
    int first = 0;
    for (size_t i = 0; i < step_.chunks().size(); ++i) {
      const Chunk& c = step_.chunks()[i];
      for (int row = first; row < first + c.rows; ++row) {
        const int at = row - first;
        if (at > 5 && at < c.rows - 5 && at % 5 != 0) continue;
        for (int head = 0; head < t_.heads; ++head)
          worst = std::max(worst, worst_of(i, first, row, head,
                                           y.data() + (row * t_.heads + head) * t_.head_dim));
      }
      first += c.rows;
    }
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
  Vector load(size_t chunk, int first_row, int side, int kv_head, int newest, int position) const {
    const Chunk& c = step_.chunks()[chunk];
    const bool own = t_.has_open_page != 0 && position / 64 == newest / 64;
    const cuda::KvView& kv = own ? t_.open : t_.cache;
    const cuda::KvSide& of = kv.side[side];
    const int64_t page = own ? static_cast<int64_t>(chunk) : step_.page(chunk, position);
    const uint8_t* base = (own ? stored_.open : stored_.pool).data() + page * kv.page_bytes +
                          of.offset + kv_head * of.head_bytes;
    const uint8_t* codes = base + position % 64 * of.row_bytes;
    const uint8_t* params = base + 64 * of.row_bytes + position % 64 * 4;
    if (own && position >= c.position) {
      const int64_t row = first_row + position - c.position;
      codes = stored_.fresh.data() + ((row * 2 + side) * t_.kv_heads + kv_head) * t_.fresh_bytes;
      params = codes + t_.head_dim;
    }
    Vector v;
    for (int i = 0; i < t_.head_dim; ++i) {
      if (of.bits == 16) {
        v.values.push_back(half(codes + 2 * i));
        v.sizes.push_back(std::abs(v.values.back()));
      } else {
        const double code = of.bits == 8 ? codes[i] : codes[i / 2] >> (4 * (i % 2)) & 15;
        v.values.push_back(half(params) + half(params + 2) * code);
        v.sizes.push_back(std::abs(v.values.back()));
      }
    }
    return v;
  }

  double worst_of(size_t chunk, int first_row, int row, int head, const float* y) const {
    const int newest = step_.chunks()[chunk].position + row - first_row, dim = t_.head_dim;
    const int kv_head = head / (t_.heads / t_.kv_heads);
    const uint8_t* q = stored_.queries.data() + (row * t_.heads + head) * t_.query_bytes;
    float factor = 0;
    std::memcpy(&factor, q + 2 * dim, 4);
    std::vector<double> scores, sum(static_cast<size_t>(dim)), magnitude(sum.size());
    double most = -INFINITY, score_size = 0, mass = 0;
    for (int p = 0; p <= newest; ++p) {
      const Vector k = load(chunk, first_row, 0, kv_head, newest, p);
      double score = 0, size = 0;
      for (size_t i = 0; i < k.values.size(); ++i) {
        score += half(q + 2 * i) * k.values[i];
        size += std::abs(half(q + 2 * i)) * k.sizes[i];
      }
      scores.push_back(score * factor * 0.6931471805599453);
      most = std::max(most, scores.back());
      score_size = std::max(score_size, size * factor);
    }
    for (int p = 0; p <= newest; ++p) {
      const double weight = std::exp(scores[static_cast<size_t>(p)] - most);
      const Vector v = load(chunk, first_row, 1, kv_head, newest, p);
      mass += weight;
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] += weight * v.values[i];
        magnitude[i] += weight * v.sizes[i];
      }
    }
    // Scores: K rounded to f16 (2^-11) where it comes from codes, sums of exact products in f32; weights and mass are off
    // by as much. Weights: f16, one rounding, those under 2^-14 of the largest step to 2^-25 of it. V: f16, one rounding.
    const double codes = t_.cache.side[0].bits < 16 ? 0x1p-11 : 0;
    const double relative =
        2 * (codes + (dim + 8) * 0x1p-24) * score_size + 0x1p-11 + codes + (newest + 65) * 0x1p-24;
    double worst = 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      const double error = std::abs(double{y[i]} - sum[i] / mass);
      const double bound = relative * magnitude[i] / mass + (newest + 1) * 0x1p-24 * 16;
      worst = std::isfinite(y[i]) ? std::max(worst, error / bound) : INFINITY;
    }
    return worst;
  }

  const PrefillStep& step_;
  const cuda::AttentionTask& t_;
  PrefillStep::Stored stored_;
};

void check(const DecodeKind& kind, const char* filter, bool tiny) {
  if (filter != nullptr && kind.name().find(filter) == std::string::npos) return;
  const std::vector<std::vector<Chunk>> sets = {
      {{0, 2}},
      {{0, 64}, {0, 5}},
      {{60, 10}, {100, 1}, {63, 66}, {0, 130}, {64, 64}, {127, 2}},
      {{500, 200}, {0, 33}, {1000, 1}, {70, 17}},
      {{0, 900}},
      {{3001, 150}, {19000, 200}}};
  double worst = 0, host = 0;
  int runs = 0;
  for (size_t i = 0; i < sets.size(); ++i)
    for (const float size : {1.0f, 8.0f}) {
      if ((size > 1 && i > 3) || (tiny && (size > 1 || i > 2))) continue;
      const PrefillStep step(kind, sets[i], size);
      std::vector<float> y, pieces;
      const double error = step.run(&y);
      ++runs, ++cases;
      // Queries, weights, K and V are rounded to f16, 2^-11 each: with all of them the error is about 2^-11 of the result
      // where the scores are of size 1, and grows with them.
      const double most = size > 1 ? 1.5e-2 : 2e-3;
      if (!(error < most)) {
        ++failures;
        std::printf("  BAD %s set %zu size %g: %g\n", kind.name().c_str(), i, size, error);
      }
      if (size == 1) worst = std::max(worst, error);
      if (i < 3) host = std::max(host, Host(step).worst(y));
      if (kind.open_page || i > 3) continue;
      step.run_in_pieces(7, &pieces);
      if (std::memcmp(y.data(), pieces.data(), y.size() * sizeof(float)) != 0) {
        ++failures;
        std::printf("  BAD %s set %zu: other bits in pieces\n", kind.name().c_str(), i);
      }
    }
  if (!(host < 1)) ++failures;
  std::printf("%-32s %3d runs, relative error %.1e, %.2f of the bound%s\n", kind.name().c_str(),
              runs, worst, host, host < 1 ? "" : "  BAD");
  std::fflush(stdout);
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
  const std::vector<std::pair<int, int>> heads = {{2, 2}, {8, 2}, {8, 1}, {3, 1}};
  for (const DecodeKind& kind :
       decode_kinds(tiny ? std::vector<std::pair<int, int>>{{8, 2}, {3, 1}} : heads))
    check(kind, filter, tiny);
  std::printf("prefill_check: %d cases, %d failures\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
