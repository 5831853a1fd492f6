// Steps that are enqueued before the host has the ids of the one before (Backend::sample_ahead) give the ids of steps that wait.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/recorded_step.h"

namespace atom::backend {
namespace {

class RecordedAhead : public BackendTest {};

TEST_P(RecordedAhead, StepsAheadOfTheHostEqualStepsThatWait) {
  Text waiting(*backend), ahead(*backend);
  const auto recording =
      backend->record([&](std::span<const SequenceStep> sequences) { ahead.enqueue(sequences); });
  std::vector<int32_t> ids = {3, 14, 15};
  ahead.set(ids);
  std::unique_ptr<PendingIds> before;
  std::vector<int32_t> expected_before;
  for (int round = 0; round < 90; ++round) {
    std::vector<int32_t> tables;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    std::vector<SampleRule> rules;
    for (int s = 0; s < kSequences; ++s) rules.push_back(Text::rule(s, round));
    waiting.set(ids);
    waiting.enqueue(sequences);
    ids = waiting.sample(rules);

    recording->run(sequences);
    if (round == 0) ahead.set({sampled_row(0), sampled_row(1), sampled_row(2)});
    std::unique_ptr<PendingIds> next = ahead.sample_ahead(rules);
    rules.assign(rules.size(), {.temperature = 1e-9f});  // nobody reads them any more
    if (before != nullptr) {
      ASSERT_EQ(listed(before->wait()), expected_before) << "round " << round - 1;
    }
    before = std::move(next);
    expected_before = ids;
  }
  EXPECT_EQ(listed(before->wait()), expected_before);
  EXPECT_EQ(ahead.logits(), waiting.logits());
}

// Sequence 1 ends with its 40th id, and another takes its row and its pages: at once where the host waits for every id, a step
// later where a step is ahead, which is one in vain. All draw the same ids.
class Replaced {
 public:
  Replaced(Backend& backend, bool ahead) : ahead_(ahead), backend_(backend), text_(backend) {}

  std::vector<std::vector<int32_t>> run() {
    const auto recording = backend_.record(
        [this](std::span<const SequenceStep> sequences) { text_.enqueue(sequences); });
    std::vector<int32_t> ids = {3, 14, 15};
    std::unique_ptr<PendingIds> before;
    for (int round = 0; round < kRounds; ++round) {
      place(round, ids);
      text_.set(ids);
      recording->run(sequences_);
      std::unique_ptr<PendingIds> now = text_.sample_ahead(rules_);
      if (!ahead_) ids = keep(now->wait());
      if (ahead_ && before != nullptr) keep(before->wait());
      before = std::move(now);
      owners_before_ = owners_;
      if (ahead_) ids = {sampled_row(0), sampled_row(1), sampled_row(2)};
    }
    if (ahead_) keep(before->wait());
    return ids_;
  }

 private:
  static constexpr int kRounds = 60, kEnd = 40, kLate = 3, kFirstOfLate = 7;

  // Who has which row in this round; sequence kLate comes in with an id that the host gives.
  void place(int round, std::vector<int32_t>& ids) {
    if (round == kEnd + (ahead_ ? 1 : 0)) owners_[1] = kLate, ids[1] = kFirstOfLate;
    sequences_.clear(), rules_.clear();
    for (int row = 0; row < kSequences; ++row) {
      const int owner = owners_[static_cast<size_t>(row)];
      const int index = steps_[static_cast<size_t>(owner)]++;
      rules_.push_back(Text::rule(owner, index));
      sequences_.push_back({.row_begin = row,
                            .row_end = row + 1,
                            .position = owner == kLate ? index : index + row * 50,
                            .page_table = tables_.data() + row * kPages,
                            .open_page = row});
    }
  }

  // Files the ids of one step under their sequences: of this round, or of the one before.
  std::vector<int32_t> keep(std::span<const int32_t> ids) {
    const std::vector<int>& owners = ahead_ ? owners_before_ : owners_;
    for (size_t row = 0; row < ids.size(); ++row) {
      std::vector<int32_t>& of = ids_[static_cast<size_t>(owners[row])];
      if (owners[row] != 1 || of.size() < kEnd) of.push_back(ids[row]);
    }
    return listed(ids);
  }

  bool ahead_;
  Backend& backend_;
  Text text_;
  std::vector<int> owners_ = {0, 1, 2}, owners_before_;
  std::vector<int> steps_ = {0, 0, 0, 0};
  std::vector<SequenceStep> sequences_;
  std::vector<SampleRule> rules_;
  std::vector<std::vector<int32_t>> ids_{4};
  const std::vector<int32_t> tables_ = [] {
    std::vector<int32_t> pages(kSequences * kPages);
    std::iota(pages.begin(), pages.end(), 0);
    return pages;
  }();
};

TEST_P(RecordedAhead, ASequenceEndsWhileAStepIsAhead) {
  const std::vector<std::vector<int32_t>> waiting = Replaced(*backend, false).run();
  const std::vector<std::vector<int32_t>> ahead = Replaced(*backend, true).run();
  for (const size_t whole : {0, 1, 2}) EXPECT_EQ(ahead[whole], waiting[whole]) << whole;
  ASSERT_EQ(waiting[1].size(), 40u);
  ASSERT_EQ(waiting[3].size(), 20u);
  EXPECT_EQ(ahead[3], std::vector<int32_t>(waiting[3].begin(), waiting[3].end() - 1));
}

TEST_P(RecordedAhead, ARowWithoutAnIdIsFollowedByNaN) {
  std::vector<float> logits = waves(size_t{2} * kVocabulary, 1.0f);
  logits[5] = std::nanf("");
  const std::vector<float> table = waves(kVocabulary, 1.0f);
  const std::vector<int32_t> ids = {sampled_row(1), sampled_row(0), 2};
  const Guarded on_device(*backend, logits), rows(*backend, table), from(*backend, ids);
  const Guarded sampled(*backend, 2 * sizeof(int32_t)), y(*backend, 3 * sizeof(float));
  const std::vector<SampleRule> rules(2);
  const std::unique_ptr<PendingIds> pending =
      backend->sample_ahead({.logits = on_device.as<float>(),
                             .rows = 2,
                             .vocabulary = kVocabulary,
                             .rules = rules.data()},
                            sampled.as<int32_t>());
  backend->embed({.ids = from.as<int32_t>(),
                  .sampled = sampled.as<int32_t>(),
                  .rows = 3,
                  .table = {rows.as<void>(), format::kF32, kVocabulary, 1},
                  .y = y.as<float>()});
  const auto best = std::max_element(logits.begin() + kVocabulary, logits.end());
  const auto id = static_cast<int32_t>(best - logits.begin() - kVocabulary);
  EXPECT_EQ(listed(pending->wait()), (std::vector<int32_t>{-1, id}));
  EXPECT_EQ(sampled.values<int32_t>(), (std::vector<int32_t>{-1, id}));
  const std::vector<float> embedded = y.values<float>();
  EXPECT_EQ(embedded[0], table[static_cast<size_t>(id)]);
  EXPECT_TRUE(std::isnan(embedded[1]));
  EXPECT_EQ(embedded[2], table[2]);
}

INSTANTIATE_TEST_SUITE_P(All, RecordedAhead, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
