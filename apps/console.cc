#include "console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "text/unicode.h"

namespace atom::app {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kNone = std::chrono::milliseconds(0);
constexpr auto kPlainLine = std::chrono::seconds(2);

bool has_environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

bool dumb_terminal() {
  const char* term = std::getenv("TERM");
  return term == nullptr || std::string_view(term) == "dumb";
}

int terminal_width() {
  winsize size = {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string paint(bool color, Style style, std::string_view text) {
  if (!color || style == Style::kPlain) return std::string(text);
  const char* code = "";
  switch (style) {
    case Style::kPlain:
      break;
    case Style::kBold:
      code = "1";
      break;
    case Style::kDim:
      code = "2";
      break;
    case Style::kRed:
      code = "1;31";
      break;
    case Style::kYellow:
      code = "33";
      break;
    case Style::kGreen:
      code = "32";
      break;
  }
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

// Code points, which is what a terminal shows of our texts.
size_t width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// U+0000..U+001F, U+007F..U+009F and bytes that are no UTF-8 as \xNN of their bytes.
std::string without_controls(std::string_view text, std::string_view allowed) {
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const text::Utf8Unit unit = text::scan_utf8(text, at);
    const std::string_view bytes = text.substr(at, unit.size);
    at += unit.size;
    bool shown = unit.kind == text::Utf8Unit::Kind::kCharacter;
    if (shown) {
      const uint32_t value = text::decode_utf8(bytes, 0).value;
      const bool control = value < 0x20 || (value >= 0x7f && value < 0xa0);
      shown = !control || allowed.find(bytes) != std::string_view::npos;
    }
    if (shown) {
      result += bytes;
    } else {
      for (const char c : bytes) result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

std::string padded(std::string_view text, size_t columns, bool left) {
  const size_t used = width(text);
  const std::string space(columns > used ? columns - used : 0, ' ');
  return left ? std::string(text) + space : space + std::string(text);
}

}  // namespace

Console& console() {
  static Console instance;
  return instance;
}

void Console::configure(const Options& options) {
  options_ = options;
  const bool color = options.color && !has_environment("NO_COLOR") && !dumb_terminal();
  out_is_terminal_ = ::isatty(STDOUT_FILENO) != 0;
  color_out_ = color && out_is_terminal_;
  color_err_ = color && ::isatty(STDERR_FILENO);
  live_ = ::isatty(STDERR_FILENO) && !dumb_terminal() && !has_environment("CI");
}

void Console::line(std::string_view text) {
  if (!shown_.empty()) fmt::print(stderr, "\r\x1b[K");
  fmt::print(stderr, "{}\n", text);
  if (!shown_.empty()) draw();
  std::fflush(stderr);
}

void Console::error(std::string_view sentence) {
  const std::lock_guard lock(mutex_);
  erase();
  line(fmt::format("{} {}", paint_err(Style::kRed, "atom: error:"), printable(sentence)));
}

void Console::warning(std::string_view sentence) {
  const std::lock_guard lock(mutex_);
  line(fmt::format("{} {}", paint_err(Style::kYellow, "atom: warning:"), printable(sentence)));
}

void Console::notice(std::string_view sentence) {
  if (options_.quiet) return;
  const std::lock_guard lock(mutex_);
  line(fmt::format("atom: {}", printable(sentence)));
}

void Console::progress(const std::string& text) {
  if (options_.quiet) return;
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (last_ == std::chrono::steady_clock::time_point()) last_ = now - (live_ ? kRedraw : kNone);
  if (live_) {
    if (!shown_.empty() && now - last_ < kRedraw) return;
    shown_ = text;
    draw();
    std::fflush(stderr);
  } else {
    if (now - last_ < kPlainLine) return;
    fmt::print(stderr, "{}\n", text);
  }
  last_ = now;
}

void Console::draw() {
  const size_t columns = static_cast<size_t>(terminal_width() - 1);
  fmt::print(stderr, "\r\x1b[K{}", clipped(shown_, columns));
}

void Console::end_progress() {
  const std::lock_guard lock(mutex_);
  erase();
}

void Console::erase() {
  if (shown_.empty()) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_.clear();
}

std::string Console::paint_out(Style style, std::string_view text) const {
  return paint(color_out_, style, text);
}

std::string Console::paint_err(Style style, std::string_view text) const {
  return paint(color_err_, style, text);
}

void print_table(const Table& table) {
  std::vector<size_t> widths;
  for (const std::string& cell : table.header) widths.push_back(width(cell));
  for (const auto& row : table.rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  const auto render = [&](const std::vector<std::string>& row) {
    std::string text;
    for (size_t i = 0; i < row.size(); ++i) {
      const bool left =
          std::find(table.left.begin(), table.left.end(), static_cast<int>(i)) != table.left.end();
      text += (i == 0 ? "  " : "   ") + padded(row[i], widths[i], left);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  };
  fmt::print("{}\n", console().paint_out(Style::kBold, render(table.header)));
  for (const auto& row : table.rows) fmt::print("{}\n", render(row));
}

void print_facts(const std::vector<Fact>& facts) {
  size_t columns = 0;
  for (const Fact& fact : facts) columns = std::max(columns, width(fact.name));
  for (const Fact& fact : facts)
    fmt::print("  {}   {}\n", console().paint_out(Style::kDim, padded(fact.name, columns, true)),
               printable(fact.value));
}

void print_heading(std::string_view text) {
  fmt::print("{}\n", console().paint_out(Style::kBold, printable(text)));
}

std::string human_bytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  for (; value >= 1023.95 && unit < 3; ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_count(int64_t count) {
  const double value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f} G", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.2f} M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:.1f} k", value / 1e3);
  return fmt::format("{}", count);
}

std::string human_seconds(double seconds) {
  if (!(seconds >= 0)) return "?";
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  const int64_t whole = std::llround(std::min(seconds, 3.6e8));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string printable(std::string_view text) { return without_controls(text, ""); }

std::string printable_lines(std::string_view text) { return without_controls(text, "\n\t"); }

std::string_view clipped(std::string_view text, size_t columns) {
  size_t at = 0;
  for (; at < text.size() && columns > 0; --columns) at += text::scan_utf8(text, at).size;
  return text.substr(0, at);
}

std::string progress_bar(double fraction) {
  constexpr int kCells = 20;
  const double bounded = fraction >= 0 ? std::min(fraction, 1.0) : 0;
  const int full = static_cast<int>(std::lround(bounded * kCells));
  std::string bar(static_cast<size_t>(full), '=');
  if (full < kCells) bar += '>';
  bar.resize(kCells, ' ');
  return "[" + bar + "]";
}

}  // namespace atom::app
