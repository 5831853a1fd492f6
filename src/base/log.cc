#include "base/log.h"

#include <mutex>

namespace atom {
namespace {

struct SinkSlot {
  std::mutex mutex;
  LogSink sink;
};

SinkSlot& sink_slot() {
  static SinkSlot slot;
  return slot;
}

}  // namespace

void set_log_sink(LogSink sink) {
  SinkSlot& slot = sink_slot();
  const std::lock_guard lock(slot.mutex);
  slot.sink = std::move(sink);
}

void log_line(LogLevel level, const std::string& line) {
  SinkSlot& slot = sink_slot();
  const std::lock_guard lock(slot.mutex);
  if (slot.sink) slot.sink(level, line);
}

}  // namespace atom
