#include "timing/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace atom::timing {

Trace Trace::published(int most) {
  check(most >= 4, "a published request has at least four positions");
  Trace trace;
  trace.most_ = std::min(most, 2048);
  trace.name_ = most < 2048 ? fmt::format("published, below {} positions", most) : "published";
  return trace;
}

Trace Trace::fixed(const Lengths& lengths) {
  check(lengths.prompt > 0 && lengths.generated > 0, "a request has a prompt and a text");
  Trace trace;
  trace.most_ = lengths.prompt + lengths.generated;
  trace.name_ = fmt::format("{}:{}", lengths.prompt, lengths.generated);
  trace.fixed_ = lengths;
  return trace;
}

Lengths Trace::draw(Random& random) const {
  if (fixed_.prompt > 0) return fixed_;
  const double wanted = 18 * std::exp(0.8 * random.normal()) - 1;
  const int prompt = static_cast<int>(std::clamp(wanted, 1.0, most_ - 2.0));
  const int total = static_cast<int>(random.below(static_cast<uint64_t>(most_)));
  return {prompt, std::max(total, prompt + 2) - prompt};
}

Lengths Trace::in_progress(Random& random) const {
  for (;;) {
    const Lengths one = draw(random);
    // Taken as often as it has steps.
    if (fixed_.prompt == 0 && random.uniform() * most_ >= one.generated) continue;
    const int done = static_cast<int>(random.below(static_cast<uint64_t>(one.generated)));
    return {one.prompt + done, one.generated - done};
  }
}

Occupancy occupancy(const Trace& trace, int page_tokens) {
  constexpr int kDraws = 1 << 14;
  Random random(11);
  double positions = 0, pages = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const int held = trace.in_progress(random).prompt + 1;
    const int whole = (held + page_tokens - 1) / page_tokens;
    const double of_pages = whole;
    positions += held;
    pages += of_pages;
    squares += of_pages * of_pages;
  }
  const double mean = pages / kDraws;
  return {positions / kDraws, mean, std::sqrt(std::max(0.0, squares / kDraws - mean * mean))};
}

}  // namespace atom::timing
