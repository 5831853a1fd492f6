#include "serving/teller.h"

#include <exception>

#include "base/log.h"

namespace atom::serving {

void Teller::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return finishing_ || !batches_.empty(); });
    if (batches_.empty()) return;
    {
      const std::vector<News> batch = std::move(batches_.front());
      lock.unlock();
      for (const News& news : batch) tell_one(news);
    }  // sinks that have ended go without the lock
    lock.lock();
    batches_.pop_front();
    changed_.notify_all();
  }
}

void Teller::tell_one(const News& news) const {
  try {
    switch (news.kind) {
      case News::Kind::kAccepted:
        return news.sink->accepted();
      case News::Kind::kRefused:
        return news.sink->refused(news.refusal, news.event.error);
      case News::Kind::kEvent:
        return news.sink->event(news.index, news.event);
    }
  } catch (const std::exception& error) {
    log_warning("request {}: its client cannot be told: {}", news.event.request, error.what());
    if (news.kind != News::Kind::kRefused) failed_(news.ticket);
  }
}

}  // namespace atom::serving
