// Log lines of the library: one sink, set by apps/; without one nothing is printed.
//
//   log_info("layer {}: {} of {} linears done", layer, done, total);
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <utility>

namespace atom {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
using LogSink = std::function<void(LogLevel level, const std::string& line)>;

void set_log_sink(LogSink sink);  // replaces the sink; an empty function silences
void log_line(LogLevel level, const std::string& line);

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace atom
