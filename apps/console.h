// What the program shows: errors, notices and one live progress line on stderr, results on stdout.
//
//   console().configure({.quiet = false, .color = true});
//   console().progress("layer 3 of 6 ...");       // redrawn on a terminal, sparse lines elsewhere
//   console().notice("kept channels clamped");    // the live line moves below it
//   print_table(table);
//
// One console per process, configured by the main thread before others use it; from then on lines may come from any thread,
// one at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace atom::app {

enum class Style { kPlain, kBold, kDim, kRed, kYellow, kGreen };

class Console {
 public:
  struct Options {
    bool quiet = false;  // no progress and no notices; errors and warnings stay
    bool color =
        true;  // wanted; used on a terminal only, and not when NO_COLOR or TERM=dumb says so
  };
  void configure(const Options& options);
  bool live() const { return live_; }  // one line that is redrawn, as opposed to lines now and then
  bool out_is_terminal() const { return out_is_terminal_; }
  bool quiet() const { return options_.quiet; }

  void error(std::string_view sentence);    // "atom: error: <sentence>", control characters escaped
  void warning(std::string_view sentence);  // "atom: warning: <sentence>"
  void notice(std::string_view sentence);   // "atom: <sentence>", not when quiet

  // Shows the state of long work. Elsewhere than on a terminal at most one line every two seconds.
  void progress(const std::string& line);
  void end_progress();  // removes the live line

  std::string paint_out(Style style, std::string_view text) const;  // for stdout
  std::string paint_err(Style style, std::string_view text) const;  // for stderr

 private:
  // With the mutex held.
  void line(std::string_view text);
  void draw();
  void erase();

  Options options_;
  bool live_ = false;
  bool out_is_terminal_ = false;
  bool color_out_ = false;
  bool color_err_ = false;
  std::mutex mutex_;   // of what follows, and of stderr
  std::string shown_;  // live line, empty: none
  std::chrono::steady_clock::time_point last_ = {};
};

Console& console();

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Columns are as wide as their widest cell; the first is left-aligned, the others right-aligned
// unless `left` names them.
struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<int> left = {0};
};
void print_table(const Table& table);  // to stdout

// "name   value" lines with aligned values; an empty name continues the value above.
struct Fact {
  std::string name;
  std::string value;
};
void print_facts(const std::vector<Fact>& facts);  // to stdout
void print_heading(std::string_view text);         // to stdout

std::string human_bytes(int64_t bytes);              // "21.0 MiB"
std::string human_count(int64_t count);              // "11.0 M"
std::string human_seconds(double seconds);           // "1:05", "1:02:03", "3.2 s" below ten seconds
std::string printable(std::string_view text);        // controls (C0, DEL, C1) and no UTF-8: as \xNN
std::string printable_lines(std::string_view text);  // the same, but newlines and tabs stay
std::string_view clipped(std::string_view text, size_t columns);  // whole characters at most
std::string progress_bar(double fraction);                        // "[=====>    ]"

}  // namespace atom::app
