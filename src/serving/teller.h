// The thread that tells sinks what the engine's thread has done: texts are decoded and answers written here, so that a step
// does not wait for them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/request.h"

namespace atom::serving {

enum class Refusal { kInvalid, kOverloaded, kStopped };

// Of one group; called on the teller's thread, but for a refusal, which may come within EngineThread::submit().
class GroupSink {
 public:
  virtual ~GroupSink() = default;
  virtual void accepted() = 0;
  virtual void refused(Refusal why, const std::string& message) = 0;
  // `index`: of the group's requests.
  virtual void event(size_t index, const engine::Event& event) = 0;
};

// What one sink hears.
struct News {
  enum class Kind { kAccepted, kRefused, kEvent };
  Kind kind = Kind::kEvent;
  uint64_t ticket = 0;
  std::shared_ptr<GroupSink> sink;
  size_t index = 0;     // of an event
  engine::Event event;  // its error: why the group was refused
  Refusal refusal = Refusal::kStopped;
};

// Sinks hear in the order of the batches. One that throws, for want of memory, concerns its client alone: `failed` is told
// its ticket, and cancels.
class Teller {
 public:
  explicit Teller(std::function<void(uint64_t ticket)> failed)
      : failed_(std::move(failed)), thread_([this] { run(); }) {}
  ~Teller() { finish(); }
  Teller(const Teller&) = delete;
  Teller& operator=(const Teller&) = delete;

  // Takes `news`. Waits while kMostBatches wait already: then answers take longer than steps do.
  void tell(std::vector<News>& news) {
    if (news.empty()) return;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return batches_.size() < kMostBatches; });
    batches_.push_back(std::exchange(news, {}));
    changed_.notify_all();
  }
  // What waits is told; then the thread has ended.
  void finish() {
    {
      const std::lock_guard lock(mutex_);
      finishing_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  static constexpr size_t kMostBatches = 16;  // two a step

  void run();
  void tell_one(const News& news) const;

  const std::function<void(uint64_t ticket)> failed_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<News>> batches_;
  bool finishing_ = false;
  std::thread thread_;
};

}  // namespace atom::serving
