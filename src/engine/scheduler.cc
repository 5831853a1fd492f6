#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace atom::engine {
namespace {

constexpr size_t kMostPassed = 64;  // that wait for a page: so many are asked in a step

}  // namespace

Scheduler::Scheduler(const Options& options, kv::PageAllocator& pages)
    : options_(options), pages_(pages) {
  check(options.max_sequences > 0 && options.max_rows >= options.max_sequences,
        "a step has a row for every sequence");
  for (int place = options.max_sequences - 1; place >= 0; --place) places_.push_back(place);
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  waiting_tokens_ += sequence->size();
  waiting_.push_back(std::move(sequence));
}

bool Scheduler::grow(Sequence& sequence, int positions, int spare) {
  const int tokens = pages_.page_tokens();
  const auto wanted = static_cast<size_t>((positions + tokens - 1) / tokens);
  const auto missing = static_cast<int>(wanted) - static_cast<int>(sequence.pages.size());
  if (missing + spare > pages_.available()) return false;
  while (sequence.pages.size() < wanted) sequence.pages.push_back(*pages_.take());
  return true;
}

void Scheduler::stop(Sequence& sequence) {
  pages_.release(sequence.pages);
  places_.push_back(sequence.place);
  sequence.pages.clear();
  sequence.place = -1;
  sequence.computed = sequence.published = 0;
  sequence.last_content = 0;
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> youngest = std::move(running_.back());
  running_.pop_back();
  stop(*youngest);
  waiting_tokens_ += youngest->size();
  waiting_.push_front(std::move(youngest));
  ++preemptions_;
}

bool Scheduler::grow_by_preemption(Sequence& sequence, int positions) {
  while (!grow(sequence, positions)) {
    const bool itself = running_.back().get() == &sequence;
    check(running_.size() > 1, "one sequence alone finds its pages");
    preempt_youngest();
    if (itself) return false;
  }
  return true;
}

bool Scheduler::is_being_computed(const Sequence& waiting, size_t index) const {
  if (!pages_.has_prefix_cache()) return false;
  const auto end =
      static_cast<std::ptrdiff_t>((index + 1) * static_cast<size_t>(pages_.page_tokens()));
  if (end >= waiting.size()) return false;  // its last id is its own to compute
  const auto computes = [&](const std::unique_ptr<Sequence>& other) {
    return std::cmp_less_equal(other->published, index) && end <= other->size() &&
           other->request.cache_salt == waiting.request.cache_salt &&
           !other->scores_prompt() &&  // which may go on slowly
           std::equal(waiting.ids.begin(), waiting.ids.begin() + end, other->ids.begin());
  };
  return std::any_of(running_.begin(), running_.end(), computes);
}

// It runs from now on, if there are pages for all that it has so far, and one for the others.
Scheduler::Admitted Scheduler::admit(size_t index, int passed, Sequence*& admitted) {
  Sequence& sequence = *waiting_[index];
  kv::PageAllocator::Prefix prefix;
  if (!sequence.scores_prompt()) {
    prefix = pages_.take_prefix(sequence.ids, sequence.request.cache_salt, &sequence.hashes);
    if (is_being_computed(sequence, prefix.pages.size())) {
      pages_.release(prefix.pages);
      return Admitted::kAwaitsPage;
    }
  }
  sequence.pages = std::move(prefix.pages);
  const int found = static_cast<int>(sequence.pages.size());
  const int spare = passed + (running_.empty() ? 0 : 1);
  if (!grow(sequence, sequence.size(), spare)) {
    pages_.release(sequence.pages);
    sequence.pages.clear();
    return Admitted::kNoRoom;
  }
  sequence.published = found;
  sequence.computed = found * pages_.page_tokens();
  if (!std::exchange(sequence.has_begun, true)) {
    sequence.cached = sequence.computed;
    begun_.push_back(sequence.id);
  }
  sequence.last_content = prefix.last;
  sequence.place = places_.back();
  places_.pop_back();
  admitted = &sequence;
  waiting_tokens_ -= sequence.size();
  const auto younger = [](RequestId id, const std::unique_ptr<Sequence>& s) { return id < s->id; };
  running_.insert(std::upper_bound(running_.begin(), running_.end(), sequence.id, younger),
                  std::move(waiting_[index]));
  waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(index));
  return Admitted::kYes;
}

// The oldest that waits for no page, and for no turn to score its prompt. Those in front of it keep theirs: what passes them
// leaves a place and the pages of its ids to each, so they wait for what they share and not for whole texts.
Sequence* Scheduler::admit_next(bool scored) {
  const int tokens = pages_.page_tokens();
  int passed = 0;
  for (size_t i = 0; i < std::min(waiting_.size(), kMostPassed) && places_.size() > i; ++i) {
    if (scored || !waiting_[i]->scores_prompt()) {
      Sequence* sequence = nullptr;
      if (admit(i, passed, sequence) != Admitted::kAwaitsPage) return sequence;
    }
    passed += (waiting_[i]->size() + tokens - 1) / tokens;
  }
  return nullptr;
}

std::vector<Chunk> Scheduler::plan() {
  std::vector<Chunk> single, longer;
  begun_.clear();
  int rows = options_.max_rows;
  const auto take = [&](Sequence& sequence, int count) {
    check(count > 0, "a chunk has rows");
    const Chunk chunk{&sequence, count, count == sequence.remaining()};
    (chunk.samples && count == 1 ? single : longer).push_back(chunk);
    rows -= count;
  };
  // Decoding sequences first: none waits for another's prompt.
  const int64_t before = preemptions_;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.remaining() == 1 && grow_by_preemption(sequence, sequence.size()))
      take(sequence, 1);
  }
  int scored = single.empty() ? rows : std::min(rows, options_.max_scored_rows);
  const auto take_more = [&](Sequence& sequence) {
    const bool scores = sequence.scores_prompt();
    const int count = std::min({rows, sequence.remaining(), scores ? scored : rows});
    if (scores) scored -= count;
    if (count > 0) take(sequence, count);
  };
  for (size_t i = 0; i < running_.size() && rows > 0; ++i)
    if (running_[i]->remaining() > 1) take_more(*running_[i]);
  // Those that came to wait again had no room: nobody else is let in before they have.
  while (preemptions_ == before && rows > 0) {
    Sequence* admitted = admit_next(scored > 0);
    if (admitted == nullptr) break;
    take_more(*admitted);
  }
  single.insert(single.end(), longer.begin(), longer.end());
  return single;
}

void Scheduler::commit(std::span<const Chunk> chunks) {
  const int tokens = pages_.page_tokens();
  for (const Chunk& chunk : chunks) {
    Sequence& s = *chunk.sequence;
    s.computed += chunk.rows;
    for (; (s.published + 1) * tokens <= s.computed; ++s.published)
      s.last_content =
          pages_.publish(s.pages[static_cast<size_t>(s.published)],
                         std::span(s.ids).subspan(static_cast<size_t>(s.published * tokens),
                                                  static_cast<size_t>(tokens)),
                         s.last_content, s.request.cache_salt);
  }
}

std::unique_ptr<Sequence> Scheduler::remove(RequestId id, bool failed) {
  const auto has_id = [id](const std::unique_ptr<Sequence>& s) { return s->id == id; };
  std::unique_ptr<Sequence> found;
  if (const auto at = std::find_if(running_.begin(), running_.end(), has_id);
      at != running_.end()) {
    found = std::move(*at);
    running_.erase(at);
    if (failed) pages_.withdraw(found->pages);
    stop(*found);
  } else if (const auto there = std::find_if(waiting_.begin(), waiting_.end(), has_id);
             there != waiting_.end()) {
    found = std::move(*there);
    waiting_.erase(there);
    waiting_tokens_ -= found->size();
  }
  return found;
}

std::vector<const Sequence*> Scheduler::all() const {
  std::vector<const Sequence*> out;
  for (const auto& sequence : running_) out.push_back(sequence.get());
  for (const auto& sequence : waiting_) out.push_back(sequence.get());
  return out;
}

std::string Scheduler::problem_of(const Sequence& s) const {
  const int tokens = pages_.page_tokens(), room = static_cast<int>(s.pages.size()) * tokens;
  if (s.computed > room)
    return fmt::format("request {} has {} positions in pages for {}", s.id, s.computed, room);
  if (s.computed > s.size())
    return fmt::format("request {} has {} positions of {} ids", s.id, s.computed, s.size());
  if (s.published * tokens > s.computed)
    return fmt::format("request {} lets others find {} pages, but has {} positions", s.id,
                       s.published, s.computed);
  for (size_t i = static_cast<size_t>(s.published); i < s.pages.size(); ++i)
    if (pages_.is_findable(s.pages[i]))
      return fmt::format("page {} is found, but request {} has yet to fill it", s.pages[i], s.id);
  return "";
}

std::string Scheduler::problem() const {
  std::vector<std::span<const int32_t>> tables;
  std::vector<bool> taken(static_cast<size_t>(options_.max_sequences), false);
  for (const int place : places_) taken.at(static_cast<size_t>(place)) = true;
  for (const auto& s : running_) {
    tables.emplace_back(s->pages);
    if (s->place < 0 || taken.at(static_cast<size_t>(s->place)))
      return fmt::format("place {} belongs to two, one of them request {}", s->place, s->id);
    taken[static_cast<size_t>(s->place)] = true;
    if (std::string wrong = problem_of(*s); !wrong.empty()) return wrong;
  }
  int64_t tokens_of_waiting = 0;
  for (const auto& s : waiting_) {
    if (!s->pages.empty() || s->place >= 0 || s->computed != 0)
      return fmt::format("request {} waits and holds pages or a place", s->id);
    tokens_of_waiting += s->size();
  }
  if (tokens_of_waiting != waiting_tokens_)
    return fmt::format("{} tokens wait, but {} are counted", tokens_of_waiting, waiting_tokens_);
  if (std::find(taken.begin(), taken.end(), false) != taken.end())
    return "a place belongs to nobody";
  return pages_.problem(tables);
}

}  // namespace atom::engine
