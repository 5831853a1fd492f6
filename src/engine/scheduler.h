// Which sequences take part in the next step, with how many rows, on which pages. It sees neither tensors nor clocks.
//
// Sequences wait in the order of their arrival, and run as long as there are rows, places and pages:
//
//   ids:       0 ........ computed ........ size          size - computed rows remain: one of a decoding sequence, more of
//   pages:     [published][   begun   ]                   a prompt, or of a text that was preempted
//
// A sequence has pages for all its ids from the beginning. One that finds no page for a new id takes those of the youngest, which waits again, in front of all others, and is
// computed anew: its cached pages may still be there, and its ids stay as they are. One whose next page of prompt is just being
// computed by another waits for that page, and lets others pass.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/random.h"
#include "engine/request.h"
#include "kv/page_allocator.h"

namespace atom::engine {

struct Sequence {
  Sequence(RequestId number, Request what, EventSink events)
      : id(number),
        request(std::move(what)),
        sink(std::move(events)),
        ids(request.prompt),
        random(request.sampling.seed) {
    const SamplingOptions& s = request.sampling;
    counts_ids = s.repetition_penalty != 1 || s.frequency_penalty != 0 || s.presence_penalty != 0;
    if (counts_ids)
      for (const int32_t of_prompt : ids) seen[of_prompt];
  }

  int size() const { return static_cast<int>(ids.size()); }
  int prompt_size() const { return static_cast<int>(request.prompt.size()); }
  int generated() const { return size() - prompt_size(); }
  int remaining() const { return size() - computed; }
  // Logits of all its rows are wanted.
  bool scores_prompt() const {
    return request.sampling.prompt_logprobs.has_value() && generated() == 0;
  }
  // The id that was sampled.
  void append(int32_t sampled) {
    ids.push_back(sampled);
    if (counts_ids) ++seen[sampled];
  }

  RequestId id;
  Request request;
  EventSink sink;
  std::vector<int32_t> ids;     // the prompt, then what was sampled: append()
  bool counts_ids = false;      // there are penalties
  std::map<int32_t, int> seen;  // with counts_ids: distinct ids, how often each was sampled
  Random random;                // one draw for each id that is sampled
  int computed = 0;             // positions whose K and V are in pages
  int published = 0;            // pages of these that others may find
  bool has_begun = false;       // it ran before
  int cached = 0;               // tokens that were found when it began
  std::vector<Logprobs> prompt_logprobs;  // of prompt[1] on, as far as it was computed
  kv::ContentId last_content = 0;
  std::vector<kv::PageHash> hashes;  // of its pages, for the next time that they are looked for
  std::vector<int32_t> pages;
  int place = -1;  // of max_sequences: its open page
};

struct Chunk {
  Sequence* sequence = nullptr;
  int rows = 0;
  bool samples = false;  // its last row is the newest id: the next one comes of its logits
};

class Scheduler {
 public:
  struct Options {
    int max_sequences = 64;
    int max_rows = 512;  // of a step
    // Of these in a step in which texts go on, rows whose logits go to the host: they take longer than others.
    int max_scored_rows = 64;
  };
  Scheduler(const Options& options, kv::PageAllocator& pages);

  void add(std::unique_ptr<Sequence> sequence);
  // The chunks of the next step: first those whose one row is the newest id. Empty: nothing runs and nothing waits.
  std::vector<Chunk> plan();
  // The rows of the plan were computed; publishes the pages that they filled.
  void commit(std::span<const Chunk> chunks);
  // Takes it out, running or waiting, and its pages back; of one that failed they are not to be found again. Null: there is none.
  std::unique_ptr<Sequence> remove(RequestId id, bool failed = false);

  int running() const { return static_cast<int>(running_.size()); }
  int waiting() const { return static_cast<int>(waiting_.size()); }
  int64_t waiting_tokens() const { return waiting_tokens_; }  // that are yet to be computed
  // Those that the last plan let run for the first time.
  std::span<const RequestId> begun() const { return begun_; }
  int64_t preemptions() const { return preemptions_; }
  std::vector<const Sequence*> all() const;  // running ones by arrival, then waiting ones
  std::string problem() const;               // what is wrong in the pages or places; empty: nothing

 private:
  // Pages for `positions` of the sequence, so that `spare` ones are left; false: there are not enough.
  bool grow(Sequence& sequence, int positions, int spare = 0);
  // The same, at the cost of sequences younger than it; false: of itself.
  bool grow_by_preemption(Sequence& sequence, int positions);
  void preempt_youngest();
  void stop(Sequence& sequence);  // gives back its pages and its place
  enum class Admitted { kYes, kNoRoom, kAwaitsPage };
  // Of those that wait; passed: pages to leave to those that it passes. `sequence`: the admitted one.
  Admitted admit(size_t index, int passed, Sequence*& sequence);
  Sequence* admit_next(bool scored);  // null: nobody; scored: also those with prompt_logprobs
  // A running one computes page `index` of `waiting` now, which is found when it is done.
  bool is_being_computed(const Sequence& waiting, size_t index) const;
  std::string problem_of(const Sequence& running) const;

  Options options_;
  kv::PageAllocator& pages_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  int64_t waiting_tokens_ = 0;  // sum of their ids
  std::vector<RequestId> begun_;
  std::vector<std::unique_ptr<Sequence>> running_;  // by arrival
  std::vector<int> places_;                         // free ones
  int64_t preemptions_ = 0;
};

}  // namespace atom::engine
