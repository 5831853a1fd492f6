// How far a quantization is, told to the caller.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace atom::quantizer {

// What a long run tells while it works; called from the calling thread.
struct Progress {
  std::string phase;  // "calibrate" | "search" | "solve" | "write"
  int layer = 0;
  int layers = 0;
  std::string module;       // module in work, may be empty
  double error = -1;        // relative output error of the module, |dY|^2 / |Y|^2; -1: none yet
  double seconds = 0;       // since the start
  double eta_seconds = -1;  // -1: unknown
  int64_t peak_rss = 0;     // bytes
};

int64_t peak_rss();  // of this process, bytes

// Keeps a Progress and estimates the time left. Parts of a layer's work, in solving: collect, algebra, advance.
class Meter {
 public:
  Meter(int layers, std::function<void(const Progress&)> sink);

  double seconds() const;
  // The calibrate phase, if there is one, goes over all layers before the solve phase does.
  void expect_calibration(bool expected) { calibrates_ = expected; }
  void phase(const std::string& name);
  void begin_collect(int layer) { begin(layer, 0, kCollectShare); }
  void begin_algebra(int layer) { begin(layer, kCollectShare, kAlgebraShare); }
  void begin_advance(int layer) {
    begin(layer, kCollectShare + kAlgebraShare, 1 - kCollectShare - kAlgebraShare);
  }
  void begin_layer(int layer) { begin(layer, 0, 1); }
  void begin_search(int layer) {
    begin_layer(layer);
    tell(-1);
  }
  void module(const std::string& name) { progress_.module = name; }
  void share(double done);  // of the pass over the windows that is under way
  void tell(double error);  // of the module that is done; negative: none

 private:
  // Measured: what the parts of a solved layer take, the advance takes the rest.
  static constexpr double kCollectShare = 0.6, kAlgebraShare = 0.05;
  static constexpr double kSolveShare = 2.2;  // a solved layer in calibration passes over it

  void begin(int layer, double before, double share);

  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
  Progress progress_;
  std::function<void(const Progress&)> sink_;
  bool calibrates_ = false;
  double search_began_ = 0,
         searched_ = 0;  // seconds; a search says nothing of how fast the rest is
  double share_ = 0, before_ = 0,
         pass_ = 1;  // of the layer's work: pass done, before it, pass in all
};

}  // namespace atom::quantizer
