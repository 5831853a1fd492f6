#include "serving/http_exchange.h"

#include "base/log.h"
#include "serving/http_message.h"

namespace atom::serving {
namespace {

class ExchangeReply final : public Reply {
 public:
  explicit ExchangeReply(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~ExchangeReply() override { exchange_->abandon(); }
  void send(HttpResponse response) override { exchange_->send(std::move(response)); }
  void begin_stream(HttpResponse head) override { exchange_->begin_stream(std::move(head)); }
  bool write(std::string bytes) override { return exchange_->write(bytes); }
  void end() override { exchange_->end(); }
  void on_gone(std::function<void()> gone) override { exchange_->on_gone(std::move(gone)); }

 private:
  const std::shared_ptr<Exchange> exchange_;
};

}  // namespace

std::shared_ptr<Reply> make_reply(std::shared_ptr<Exchange> exchange) {
  return std::make_shared<ExchangeReply>(std::move(exchange));
}

void Exchange::wake(std::unique_lock<std::mutex>& lock) {
  const bool first = !woken_ || cut_;  // one that sends does not take(), but looks for a cut
  woken_ = true;
  lock.unlock();
  if (first) options_.wake();
}

// The head goes to the queue; from here on it is settled whether the connection stays.
void Exchange::head(HttpResponse& response, Framing framing) {
  close_ = last_ || !options_.keep_alive || framing == Framing::kUntilClose || options_.closing();
  ready_ += render_head(response,
                        {.framing = framing, .close = close_, .request_id = options_.request_id});
}

void Exchange::send(HttpResponse response) {
  std::unique_lock lock(mutex_);
  if (gone_ || state_ != State::kOpen) return;
  head(response, Framing::kLength);
  if (!options_.head_only) ready_ += response.body;
  state_ = State::kEnded;
  const std::function<void()> unused = std::move(on_gone_);  // destroyed without the lock
  on_gone_ = nullptr;
  wake(lock);
}

void Exchange::begin_stream(HttpResponse response) {
  std::unique_lock lock(mutex_);
  if (gone_ || state_ != State::kOpen) return;
  head(response, options_.chunked ? Framing::kChunked : Framing::kUntilClose);
  state_ = State::kStreaming;
  wake(lock);
}

bool Exchange::write(std::string_view bytes) {
  std::unique_lock lock(mutex_);
  if (gone_ || cut_ || state_ != State::kStreaming) return false;
  // The bytes that wait tell of a slow client; the size of one piece does not.
  if (ready_.size() + being_sent_ > options_.queue_bytes) {
    cut_ = true;
    wake(lock);
    return false;
  }
  if (options_.head_only) return true;
  ready_ += options_.chunked ? chunk(bytes) : std::string(bytes);
  wake(lock);
  return true;
}

void Exchange::end() {
  std::unique_lock lock(mutex_);
  if (gone_ || state_ != State::kStreaming) return;
  if (options_.chunked && !options_.head_only) ready_ += kLastChunk;
  state_ = State::kEnded;
  const std::function<void()> unused = std::move(on_gone_);
  on_gone_ = nullptr;
  wake(lock);
}

void Exchange::on_gone(std::function<void()> gone) {
  std::unique_lock lock(mutex_);
  if (state_ == State::kEnded) return;
  if (!gone_) {
    on_gone_.swap(gone);
    lock.unlock();  // before the old function goes
    return;
  }
  lock.unlock();
  gone();
}

void Exchange::abandon() {
  std::unique_lock lock(mutex_);
  if (gone_ || cut_ || state_ == State::kEnded) return;
  if (state_ == State::kStreaming) {
    cut_ = true;
    wake(lock);
    return;
  }
  lock.unlock();
  log_warning("request {}: it was dropped without an answer", options_.request_id);
  send(options_.error(500, "the server failed to answer"));
}

Exchange::Taken Exchange::take() {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  Taken taken = {.bytes = std::move(ready_), .ended = state_ == State::kEnded, .cut = cut_};
  ready_.clear();
  being_sent_ = taken.bytes.size();
  return taken;
}

bool Exchange::cut() const {
  const std::lock_guard lock(mutex_);
  return cut_;
}

bool Exchange::keep_alive() const {
  const std::lock_guard lock(mutex_);
  return !close_ && !last_ && !gone_ && !cut_;
}

void Exchange::close_after() {
  const std::lock_guard lock(mutex_);
  last_ = true;
}

void Exchange::leave() {
  std::unique_lock lock(mutex_);
  gone_ = true;
  ready_.clear();
  const std::function<void()> gone = std::move(on_gone_);
  on_gone_ = nullptr;
  const bool ended = state_ == State::kEnded;
  lock.unlock();
  if (!gone || ended) return;
  try {
    gone();
  } catch (const std::exception& error) {
    log_warning("request {}: {}", options_.request_id, error.what());
  }
}

}  // namespace atom::serving
