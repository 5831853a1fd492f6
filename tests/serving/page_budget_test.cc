// Pages of the KV-cache from free memory.
#include "serving/page_budget.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace atom::testing {
namespace {

using serving::page_budget;
using serving::PageNeeds;

constexpr int64_t kMiB = 1 << 20;

PageNeeds needs(int64_t free_mib) {
  return {.page_bytes = kMiB,
          .sequence_bytes = 2 * kMiB,
          .fixed_bytes = 10 * kMiB,
          .free_bytes = free_mib * kMiB,
          .share = 0.5,
          .page_tokens = 64,
          .max_sequences = 4,
          .max_positions = 1000};  // 16 pages
}

std::string refusal(const PageNeeds& needs) {
  try {
    page_budget(needs);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PageBudgetTest, TakesWhatIsUsefulOrWhatFits) {
  EXPECT_EQ(page_budget(needs(0)).pages, 64);     // not known
  EXPECT_EQ(page_budget(needs(1000)).pages, 64);  // 500 allowed, more than four sequences need
  EXPECT_EQ(page_budget(needs(100)).pages, 32);   // 50 allowed, 10 for rows, 8 for sequences
  EXPECT_EQ(page_budget(needs(100)).words,
            "KV-cache of 32.0 MiB for 2048 tokens: 2.0 sequences of 1000");
  EXPECT_EQ(page_budget(needs(68)).pages, 16);
}

TEST(PageBudgetTest, SaysWhichLengthFits) {
  EXPECT_EQ(refusal(needs(60)),
            "--max-model-len: a sequence of 1000 tokens needs 16.0 MiB of KV-cache, but 60.0 MiB "
            "of memory are free and "
            "50 % of them may be used; --max-model-len 768 fits");
  PageNeeds fitting = needs(60);
  fitting.max_positions = 768;
  EXPECT_EQ(page_budget(fitting).pages, 12);
  EXPECT_TRUE(refusal(needs(30)).starts_with("--max-num-seqs: 30.0 MiB of memory are free"));
}

}  // namespace
}  // namespace atom::testing
