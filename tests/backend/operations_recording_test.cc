// Recorded steps give the bits of steps that are called, whatever happens between them.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/recorded_step.h"

namespace atom::backend {
namespace {

class Recorded : public BackendTest {};

TEST_P(Recorded, EqualsCalls) {
  Step called(*backend), recorded(*backend);
  const auto recording = backend->record(
      [&](std::span<const SequenceStep> sequences) { recorded.enqueue(sequences); });
  Buffer other = backend->allocate(64);
  for (int round = 0; round < 90; ++round) {
    std::vector<int32_t> tables;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    called.set(round), recorded.set(round);
    called.enqueue(sequences);
    recording->run(sequences);
    tables.assign(tables.size(), 1 << 30);            // nobody reads them any more
    if (round == 30) other = backend->allocate(128);  // memory goes back
    ASSERT_EQ(called.result(), recorded.result()) << "round " << round;
  }
}

TEST_P(Recorded, StepsTakeTurns) {
  Step first(*backend), second(*backend), called(*backend);
  const auto record = [&](Step& step) {
    return backend->record([&](std::span<const SequenceStep> s) { step.enqueue(s); });
  };
  const auto a = record(first), b = record(second);
  for (int round = 0; round < 8; ++round) {
    std::vector<int32_t> tables, later;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    first.set(round), second.set(round + 3), called.set(round);
    a->run(sequences);
    b->run(sequences_at(round + 60, later));
    called.enqueue(sequences);
    ASSERT_EQ(called.result(), first.result()) << "round " << round;
  }
}

TEST_P(Recorded, GoesOnAfterAnError) {
  Step step(*backend), called(*backend);
  int calls = 0;
  const auto recording = backend->record([&](std::span<const SequenceStep> sequences) {
    if (++calls == 2) throw std::runtime_error("the second call fails");
    step.enqueue(sequences);
  });
  for (int round = 0; round < 5; ++round) {
    std::vector<int32_t> tables;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    step.set(round), called.set(round);
    called.enqueue(sequences);
    if (round == 1) {
      EXPECT_THROW(recording->run(sequences), std::runtime_error);
      step.enqueue(sequences);
    } else {
      recording->run(sequences);
    }
    ASSERT_EQ(called.result(), step.result()) << "round " << round;
  }
}

TEST_P(Recorded, AStepThatCannotBeKeptIsCalled) {
  Step called(*backend), recorded(*backend);
  const auto recording = backend->record([&](std::span<const SequenceStep> sequences) {
    recorded.enqueue(sequences);
    backend->synchronize();
  });
  for (int round = 0; round < 5; ++round) {
    std::vector<int32_t> tables;
    const std::vector<SequenceStep> sequences = sequences_at(round, tables);
    called.set(round), recorded.set(round);
    called.enqueue(sequences);
    recording->run(sequences);
    ASSERT_EQ(called.result(), recorded.result()) << "round " << round;
  }
  const std::vector<std::string> notices = backend->fallbacks();
  EXPECT_EQ(std::count_if(notices.begin(), notices.end(),
                          [](const std::string& n) { return n.starts_with("recorded steps: "); }),
            backend->name() == "cuda" ? 1 : 0);
}

INSTANTIATE_TEST_SUITE_P(All, Recorded, ::testing::ValuesIn(candidates()), candidate_name);

}  // namespace
}  // namespace atom::backend
