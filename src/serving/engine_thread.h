// The thread that owns an engine. Any thread submits and cancels, through a mailbox; sinks are called on another thread, the
// teller's, while the next step runs.
//
//   EngineThread thread(model, {.max_sequences = 64});
//   const EngineThread::Ticket ticket = thread.new_ticket();
//   thread.submit(ticket, {request, request}, sink);      // a group: all of it is accepted, or none
//   thread.cancel(ticket);
//
// Each sink hears refused() once and nothing else; or accepted(), then of each request any number of ids and exactly one
// finish. That holds also when the thread dies: what was open ends with an error, what comes is refused, alive() is false.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "serving/histogram.h"
#include "serving/queue_clock.h"
#include "serving/teller.h"

namespace atom::serving {

// Times in seconds.
struct ThreadStats {
  engine::EngineStats engine;
  std::array<int64_t, 6> finished{};  // requests, by engine::Finish
  Histogram first_token, inter_token, whole, queue;
  double queue_seconds = 0;  // that a request which comes now is likely to wait
};

struct EngineThreadOptions {
  // Called before each step, on the engine's thread; what it throws ends the thread as an error of the engine does.
  std::function<void()> before_step;
};

class EngineThread {
 public:
  using Ticket = uint64_t;

  // Error: as of engine::Engine.
  EngineThread(const model::Model& model, const engine::EngineOptions& options,
               EngineThreadOptions thread_options = {});
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  Ticket new_ticket() { return next_ticket_++; }
  // Once for each ticket. Deadlines are those of now(), in seconds.
  void submit(Ticket ticket, std::vector<engine::Request> requests,
              std::shared_ptr<GroupSink> sink);
  // All of the group, or one of it; before the next step. They end as `finish`. Tickets that have ended are ignored.
  void cancel(Ticket ticket, std::optional<size_t> index = {},
              engine::Finish finish = engine::Finish::kCancelled);
  void stop();  // what is open is cancelled, and told so; the threads have ended

  bool alive() const { return alive_; }  // false after an error of the engine or stop()
  std::string cause() const;             // of its death; empty: none
  double now() const;
  ThreadStats stats() const;
  const engine::EngineOptions& options() const { return options_; }
  const model::ModelConfig& config() const { return config_; }
  // Tokens that one sequence can have.
  int64_t context() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Item {
    engine::RequestId id = 0;
    bool ended = false;
    std::optional<double> last_id;  // when the newest id came
    engine::Finish cancelled_as = engine::Finish::kCancelled;
  };
  struct Group {
    std::shared_ptr<GroupSink> sink;
    std::vector<Item> items;
    size_t open = 0;
    double submitted = 0;
    bool refused = false;
  };
  struct Mail {
    Ticket ticket = 0;
    std::vector<engine::Request> requests;  // of a submission
    std::shared_ptr<GroupSink> sink;        // null: a cancellation
    std::optional<size_t> index;
    engine::Finish finish = engine::Finish::kCancelled;
    double submitted = 0;
  };

  void run();
  bool take_mail(bool wait, std::vector<Mail>& mail);
  void open_group(Mail& mail);
  void tell_refusal(Ticket ticket, std::shared_ptr<GroupSink> sink, Refusal why,
                    const std::string& message);
  void close_group(const Mail& mail);
  void on_event(Ticket ticket, size_t index, const engine::Event& event);
  void measure(Group& group, Item& item, const engine::Event& event);
  void after_step();
  void end_all(engine::Finish finish, const std::string& error);
  void die(const std::string& what);

  const Clock::time_point start_ = Clock::now();
  const model::ModelConfig config_;
  const EngineThreadOptions thread_options_;
  std::atomic<Ticket> next_ticket_ = 1;
  std::atomic<bool> alive_ = true;

  mutable std::mutex mutex_;  // of these
  std::condition_variable wake_;
  std::vector<Mail> mail_;
  int mail_requests_ = 0;  // of submissions in mail_
  bool stopping_ = false;
  std::string cause_;
  ThreadStats seen_;  // what stats() gives

  // Of the engine's thread.
  std::unordered_map<Ticket, Group> groups_;
  std::vector<Ticket> ended_;                              // groups to be forgotten after the step
  std::unordered_map<engine::RequestId, double> unbegun_;  // when they were submitted
  std::vector<engine::RequestId> ended_requests_;          // of this step, for unbegun_
  QueueClock queue_clock_;
  double step_began_ = 0;  // of the newest step; when its requests left the queue
  ThreadStats stats_;
  std::vector<News> news_;  // for the teller
  engine::Engine engine_;
  const engine::EngineOptions options_;
  Teller teller_;
  std::jthread thread_;
};

}  // namespace atom::serving
