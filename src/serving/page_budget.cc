#include "serving/page_budget.h"

#include <algorithm>

#include "base/error.h"

namespace atom::serving {
namespace {

std::string gib(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  return bytes >= int64_t{1} << 30 ? fmt::format("{:.1f} GiB", value / (1 << 30))
                                   : fmt::format("{:.1f} MiB", value / (1 << 20));
}

}  // namespace

PageBudget page_budget(const PageNeeds& needs) {
  check(needs.page_bytes > 0 && needs.page_tokens > 0 && needs.max_sequences > 0 &&
            needs.max_positions > 0,
        "a budget needs sizes");
  const int64_t each = (int64_t{needs.max_positions} + needs.page_tokens - 1) / needs.page_tokens;
  const int64_t useful = std::min<int64_t>(each * needs.max_sequences, INT32_MAX);
  int64_t pages = useful;
  if (needs.free_bytes > 0) {
    const auto allowed = static_cast<int64_t>(static_cast<double>(needs.free_bytes) * needs.share);
    const int64_t room = allowed - needs.fixed_bytes - needs.sequence_bytes * needs.max_sequences;
    pages = std::clamp<int64_t>(room / needs.page_bytes, 0, useful);
    if (pages < each) {
      const std::string memory =
          fmt::format("{} of memory are free and {:.0f} % of them may be used",
                      gib(needs.free_bytes), needs.share * 100);
      if (pages == 0)
        fail(
            "--max-num-seqs: {}, and not one page of the KV-cache fits beside {} sequences and a "
            "step's rows; lower "
            "--max-num-seqs or --max-num-batched-tokens, or raise --gpu-memory-utilization",
            memory, needs.max_sequences);
      fail(
          "--max-model-len: a sequence of {} tokens needs {} of KV-cache, but {}; --max-model-len "
          "{} fits",
          needs.max_positions, gib(each * needs.page_bytes), memory, pages * needs.page_tokens);
    }
  }
  const double whole = static_cast<double>(pages) / static_cast<double>(each);
  return {.pages = static_cast<int>(pages),
          .words = fmt::format("KV-cache of {} for {} tokens: {:.1f} sequences of {}",
                               gib(pages * needs.page_bytes), pages * needs.page_tokens, whole,
                               needs.max_positions)};
}

}  // namespace atom::serving
