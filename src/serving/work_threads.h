// A few threads that do pieces of work: read, tokenize, render what clients send.
//
// Large pieces never have all threads, so that a client with long prompts does not hold up those with short ones. Pieces of
// a kind begin in the order in which they came.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace atom::serving {

class WorkThreads {
 public:
  // most_bytes: that may wait. A piece of large_bytes or more is large; one thread is kept for others, where there are two.
  WorkThreads(int threads, size_t most_bytes, size_t large_bytes)
      : most_bytes_(most_bytes),
        large_bytes_(large_bytes),
        most_large_(threads > 1 ? threads - 1 : 1) {
    for (int i = 0; i < threads; ++i)
      threads_.emplace_back([this](const std::stop_token& stop) { run(stop); });
  }

  // `work` does not throw. False: more than most_bytes wait already. What waits at the end is dropped.
  bool post(size_t bytes, std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      if (bytes_ > 0 && bytes_ + bytes > most_bytes_) return false;
      bytes_ += bytes;
      (bytes >= large_bytes_ ? large_ : small_).push_back({next_++, bytes, std::move(work)});
    }
    wake_.notify_one();
    return true;
  }

 private:
  struct Piece {
    uint64_t number = 0;  // in order of arrival
    size_t bytes = 0;
    std::function<void()> work;
  };

  // Where the next piece is; null: there is none that may begin now.
  std::deque<Piece>* next() {
    const bool large = !large_.empty() && running_large_ < most_large_;
    if (small_.empty()) return large ? &large_ : nullptr;
    return large && large_.front().number < small_.front().number ? &large_ : &small_;
  }

  void run(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (wake_.wait(lock, stop, [this] { return next() != nullptr; }) && !stop.stop_requested()) {
      std::deque<Piece>* from = next();
      Piece piece = std::move(from->front());
      from->pop_front();
      const bool is_large = from == &large_;
      running_large_ += is_large ? 1 : 0;
      lock.unlock();
      piece.work();
      piece.work = nullptr;  // what it holds goes before the next one is waited for
      lock.lock();
      bytes_ -= piece.bytes;
      if (!is_large) continue;
      --running_large_;
      wake_.notify_one();  // another large one may begin
    }
  }

  const size_t most_bytes_, large_bytes_;
  const int most_large_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<Piece> small_, large_;
  uint64_t next_ = 0;
  size_t bytes_ = 0;
  int running_large_ = 0;
  std::vector<std::jthread> threads_;
};

}  // namespace atom::serving
