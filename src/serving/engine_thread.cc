#include "serving/engine_thread.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace atom::serving {
namespace {

using engine::Event;
using engine::Finish;

ThreadStats empty_stats() {
  const std::vector<double> waits = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                     1,     2,     5,     10,   20,   50,   100, 200};
  ThreadStats stats;
  stats.first_token = stats.whole = stats.queue = Histogram(waits);
  stats.inter_token = Histogram(
      {0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5});
  return stats;
}

}  // namespace

EngineThread::EngineThread(const model::Model& model, const engine::EngineOptions& options,
                           EngineThreadOptions thread_options)
    : config_(model.config),
      thread_options_(std::move(thread_options)),
      seen_(empty_stats()),
      stats_(empty_stats()),
      engine_(model, options),
      options_(engine_.options()),
      teller_([this](Ticket ticket) { cancel(ticket); }) {
  seen_.engine = engine_.stats();
  thread_ = std::jthread([this] { run(); });
}

EngineThread::~EngineThread() { stop(); }

void EngineThread::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  teller_.finish();
}

double EngineThread::now() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

std::string EngineThread::cause() const {
  const std::lock_guard lock(mutex_);
  return cause_;
}

ThreadStats EngineThread::stats() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

int64_t EngineThread::context() const {
  return std::min<int64_t>(options_.max_positions,
                           int64_t{options_.pages} * format::KvLayout{}.tokens);
}

void EngineThread::submit(Ticket ticket, std::vector<engine::Request> requests,
                          std::shared_ptr<GroupSink> sink) {
  std::optional<Refusal> refusal;
  std::string why;
  {
    const std::lock_guard lock(mutex_);
    const int count = static_cast<int>(requests.size());
    if (!alive_ || stopping_) {
      refusal = Refusal::kStopped;
      why = "the engine has stopped";
    } else if (requests.empty()) {
      refusal = Refusal::kInvalid;
      why = "a group without requests";
    } else if (mail_requests_ > 0 && mail_requests_ + count > options_.max_waiting) {
      refusal = Refusal::kOverloaded;
      why = fmt::format("{} requests wait already", mail_requests_);
    } else {
      mail_requests_ += count;
      mail_.push_back({.ticket = ticket,
                       .requests = std::move(requests),
                       .sink = sink,
                       .index = {},
                       .submitted = now()});
    }
  }
  if (refusal) {
    sink->refused(*refusal, why);
    return;
  }
  wake_.notify_all();
}

void EngineThread::cancel(Ticket ticket, std::optional<size_t> index, Finish finish) {
  {
    const std::lock_guard lock(mutex_);
    if (!alive_) return;
    mail_.push_back(
        {.ticket = ticket, .requests = {}, .sink = nullptr, .index = index, .finish = finish});
  }
  wake_.notify_all();
}

void EngineThread::run() {
  try {
    std::vector<Mail> mail;
    bool busy = true;
    while (take_mail(!busy, mail)) {
      for (Mail& one : mail) one.sink ? open_group(one) : close_group(one);
      teller_.tell(news_);
      if (thread_options_.before_step) thread_options_.before_step();
      step_began_ = now();
      busy = engine_.step(step_began_);
      after_step();
    }
    alive_ = false;
    end_all(Finish::kCancelled, "the engine has stopped");
  } catch (const std::exception& error) {
    die(error.what());
  } catch (...) {
    die("an exception of an unknown kind");
  }
}

// False: to stop.
bool EngineThread::take_mail(bool wait, std::vector<Mail>& mail) {
  mail.clear();
  std::unique_lock lock(mutex_);
  if (wait) wake_.wait(lock, [this] { return stopping_ || !mail_.empty(); });
  if (stopping_) return false;
  mail.swap(mail_);
  mail_requests_ = 0;
  return true;
}

void EngineThread::open_group(Mail& mail) {
  const Ticket ticket = mail.ticket;
  Group& group = groups_[ticket];
  group.sink = std::move(mail.sink);
  group.submitted = mail.submitted;
  group.items.resize(mail.requests.size());
  const auto refuse = [&](Refusal why, const std::string& message) {
    group.refused = true;  // so that its sink does not hear of the ends
    for (size_t i = 0; i < group.items.size(); ++i)
      if (group.items[i].id != 0) engine_.cancel(group.items[i].id);
    const std::shared_ptr<GroupSink> sink = std::move(group.sink);
    groups_.erase(ticket);
    tell_refusal(ticket, sink, why, message);
  };
  try {
    for (size_t i = 0; i < group.items.size(); ++i)
      group.items[i].id =
          engine_.submit(std::move(mail.requests[i]),
                         [this, ticket, i](const Event& event) { on_event(ticket, i, event); });
  } catch (const engine::Overloaded& error) {
    return refuse(Refusal::kOverloaded, error.what());
  } catch (const Error& error) {
    return refuse(Refusal::kInvalid, error.what());
  }
  group.open = group.items.size();
  for (const Item& item : group.items) unbegun_.emplace(item.id, group.submitted);
  news_.push_back(
      {.kind = News::Kind::kAccepted, .ticket = ticket, .sink = group.sink, .event = {}});
}

void EngineThread::tell_refusal(Ticket ticket, std::shared_ptr<GroupSink> sink, Refusal why,
                                const std::string& message) {
  news_.push_back({.kind = News::Kind::kRefused,
                   .ticket = ticket,
                   .sink = std::move(sink),
                   .event = {.error = message},
                   .refusal = why});
}

void EngineThread::close_group(const Mail& mail) {
  const auto found = groups_.find(mail.ticket);
  if (found == groups_.end()) return;
  Group& group = found->second;
  for (size_t i = 0; i < group.items.size(); ++i) {
    Item& item = group.items[i];
    if (item.ended || (mail.index && *mail.index != i)) continue;
    item.cancelled_as = mail.finish;
    engine_.cancel(item.id);
  }
}

void EngineThread::measure(Group& group, Item& item, const Event& event) {
  const double time = now();
  if (event.id) {
    if (item.last_id)
      stats_.inter_token.add(time - *item.last_id);
    else
      stats_.first_token.add(time - group.submitted);
    item.last_id = time;
  }
  if (event.finish == Finish::kNot) return;
  ended_requests_.push_back(item.id);
  if (event.finish != Finish::kCancelled) queue_clock_.ended(time);
  stats_.whole.add(time - group.submitted);
  ++stats_.finished[static_cast<size_t>(event.finish)];
}

void EngineThread::on_event(Ticket ticket, size_t index, const Event& event) {
  const auto found = groups_.find(ticket);
  if (found == groups_.end() || found->second.refused) return;
  Group& group = found->second;
  Item& item = group.items[index];
  if (item.ended) return;
  Event told = event;
  if (event.finish == Finish::kCancelled) told.finish = item.cancelled_as;
  measure(group, item, told);
  if (told.finish != Finish::kNot) {
    item.ended = true;
    if (--group.open == 0) ended_.push_back(ticket);
  }
  news_.push_back({.ticket = ticket, .sink = group.sink, .index = index, .event = std::move(told)});
}

void EngineThread::after_step() {
  stats_.engine = engine_.stats();
  for (const engine::RequestId id : engine_.begun()) {
    const auto found = unbegun_.find(id);
    if (found == unbegun_.end()) continue;  // of the step before: this one had nothing to do
    stats_.queue.add(step_began_ - found->second);
    unbegun_.erase(found);
  }
  for (const engine::RequestId id : ended_requests_) unbegun_.erase(id);
  ended_requests_.clear();
  const double each = stats_.whole.sum() /
                      static_cast<double>(std::max<int64_t>(1, stats_.whole.count())) /
                      std::max(1, stats_.engine.running);
  queue_clock_.waiting(stats_.engine.waiting, now());
  stats_.queue_seconds = queue_clock_.seconds(now(), each);
  for (const Ticket ticket : ended_) groups_.erase(ticket);
  ended_.clear();
  {
    const std::lock_guard lock(mutex_);
    seen_ = stats_;
  }
  teller_.tell(news_);  // clients find themselves in the statistics
}

// Nothing is asked of the engine any more, which may be broken.
void EngineThread::end_all(Finish finish, const std::string& error) {
  std::vector<Mail> mail;
  {
    const std::lock_guard lock(mutex_);
    mail.swap(mail_);
    mail_requests_ = 0;
  }
  for (auto& [ticket, group] : groups_) {
    const std::shared_ptr<GroupSink> sink = group.sink;
    if (group.open == 0 && sink && !group.items.front().ended)  // it was just being submitted
      tell_refusal(ticket, sink, Refusal::kStopped, error);
    for (size_t i = 0; group.open > 0 && i < group.items.size(); ++i) {
      Item& item = group.items[i];
      if (item.ended) continue;
      item.ended = true;
      ++stats_.finished[static_cast<size_t>(finish)];
      news_.push_back({.ticket = ticket,
                       .sink = sink,
                       .index = i,
                       .event = {.request = item.id, .finish = finish, .error = error}});
    }
  }
  groups_.clear();
  for (Mail& one : mail)
    if (one.sink) tell_refusal(one.ticket, std::move(one.sink), Refusal::kStopped, error);
  {
    const std::lock_guard lock(mutex_);
    seen_ = stats_;
    seen_.engine.running = seen_.engine.waiting = 0;
    seen_.queue_seconds = 0;
  }
  teller_.tell(news_);
}

void EngineThread::die(const std::string& what) {
  log_line(LogLevel::kError, "the engine has died: " + what);
  {
    const std::lock_guard lock(mutex_);
    cause_ = what.empty() ? "an unknown error" : what;
    alive_ = false;
  }
  end_all(Finish::kError, "the engine has stopped");
}

}  // namespace atom::serving
