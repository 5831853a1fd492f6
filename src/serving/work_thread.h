// A thread that does pieces of work in their order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace atom::serving {

class WorkThread {
 public:
  explicit WorkThread(size_t most_bytes)
      : most_bytes_(most_bytes), thread_([this](const std::stop_token& stop) { run(stop); }) {}

  // `work` does not throw. False: more than most_bytes wait already. What waits at the end is dropped.
  bool post(size_t bytes, std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      if (!queue_.empty() && bytes_ + bytes > most_bytes_) return false;
      bytes_ += bytes;
      queue_.emplace_back(bytes, std::move(work));
    }
    wake_.notify_one();
    return true;
  }

 private:
  void run(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (wake_.wait(lock, stop, [this] { return !queue_.empty(); }) && !stop.stop_requested()) {
      auto [bytes, work] = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      work = nullptr;  // what it holds goes before the next one is waited for
      lock.lock();
      bytes_ -= bytes;
    }
  }

  const size_t most_bytes_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::deque<std::pair<size_t, std::function<void()>>> queue_;
  size_t bytes_ = 0;
  std::jthread thread_;
};

}  // namespace atom::serving
