// What Scheduler::problem() notices, and what a plan never does.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace atom::engine {
namespace {

constexpr int kTokens = 4;

class Problems : public ::testing::Test {
 protected:
  // A sequence of ten ids whose first eight are computed, in three pages.
  Problems() {
    Request request{
        .prompt = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, .sampling = {}, .cache_salt = "", .deadline = {}};
    scheduler_.add(std::make_unique<Sequence>(1, request, EventSink()));
    const std::vector<Chunk> chunks = scheduler_.plan();
    sequence_ = chunks.at(0).sequence;
    scheduler_.commit(chunks);
  }

  kv::PageAllocator pages_{{.pages = 6, .page_tokens = kTokens}};
  Scheduler scheduler_{{.max_sequences = 2, .max_rows = 8}, pages_};
  Sequence* sequence_ = nullptr;
};

TEST_F(Problems, NoneAtFirst) {
  EXPECT_EQ(scheduler_.problem(), "");
  EXPECT_EQ(sequence_->computed, 8);
  EXPECT_EQ(sequence_->published, 2);
  EXPECT_EQ(sequence_->pages.size(), 3u);
}

TEST_F(Problems, MorePositionsThanIds) {
  sequence_->computed = 11;
  EXPECT_EQ(scheduler_.problem(), "request 1 has 11 positions of 10 ids");
  sequence_->computed = 13;
  EXPECT_EQ(scheduler_.problem(), "request 1 has 13 positions in pages for 12");
}

TEST_F(Problems, PagesThatAreFoundTooEarly) {
  sequence_->computed = 7;
  EXPECT_EQ(scheduler_.problem(), "request 1 lets others find 2 pages, but has 7 positions");
  sequence_->computed = 8;
  sequence_->published = 1;
  EXPECT_EQ(scheduler_.problem(), "page " + std::to_string(sequence_->pages[1]) +
                                      " is found, but request 1 has yet to fill it");
}

TEST_F(Problems, PlacesOfTwo) {
  sequence_->place = 1 - sequence_->place;
  EXPECT_EQ(scheduler_.problem(),
            "place " + std::to_string(sequence_->place) + " belongs to two, one of them request 1");
}

// A request that failed is out, and its pages are found no more.
// Tokens that wait are counted when they come, go, begin and come to wait again.
TEST_F(Problems, CountsWhatWaitsAndWhatBegins) {
  EXPECT_EQ(scheduler_.waiting_tokens(), 0);
  ASSERT_EQ(scheduler_.begun().size(), 1u);
  Request long_one{
      .prompt = std::vector<int32_t>(9, 3), .sampling = {}, .cache_salt = "", .deadline = {}};
  Request short_one{.prompt = {4, 5}, .sampling = {}, .cache_salt = "", .deadline = {}};
  scheduler_.add(std::make_unique<Sequence>(2, short_one, EventSink()));
  scheduler_.add(std::make_unique<Sequence>(3, long_one, EventSink()));
  EXPECT_EQ(scheduler_.waiting_tokens(), 11);
  std::vector<Chunk> chunks = scheduler_.plan();
  scheduler_.commit(chunks);
  ASSERT_EQ(scheduler_.begun().size(), 1u);
  EXPECT_EQ(scheduler_.begun()[0], 2u);
  EXPECT_EQ(scheduler_.waiting_tokens(), 9);
  // The texts grow until the second has no page left and waits again.
  for (int i = 0; scheduler_.preemptions() == 0 && i < 100; ++i) {
    for (const Chunk& chunk : chunks) chunk.sequence->append(1);
    chunks = scheduler_.plan();
    scheduler_.commit(chunks);
    EXPECT_TRUE(scheduler_.begun().empty());
    EXPECT_EQ(scheduler_.problem(), "");
  }
  ASSERT_EQ(scheduler_.preemptions(), 1);
  const Sequence& again = *scheduler_.all()[1];
  EXPECT_EQ(again.id, 2u);
  EXPECT_EQ(scheduler_.waiting_tokens(), 9 + again.size());
  scheduler_.remove(3);
  EXPECT_EQ(scheduler_.waiting_tokens(), again.size());
  scheduler_.remove(1);
  scheduler_.commit(scheduler_.plan());
  EXPECT_TRUE(scheduler_.begun().empty());  // it ran before
  EXPECT_EQ(scheduler_.waiting_tokens(), 0);
  EXPECT_EQ(scheduler_.problem(), "");
}

TEST_F(Problems, AFailureLeavesNoPages) {
  EXPECT_NE(scheduler_.remove(1, true), nullptr);
  EXPECT_EQ(pages_.cached(), 0);
  EXPECT_EQ(pages_.available(), 6);
  EXPECT_EQ(scheduler_.problem(), "");
}

}  // namespace
}  // namespace atom::engine
