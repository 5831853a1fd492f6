// Lengths of requests to serve: those of the published measurement, or all the same.
//
//   const Trace trace = Trace::published(2048);
//   const Lengths one = trace.draw(random);             // a request
//   const Lengths met = trace.in_progress(random);      // one that a server at work is at
#pragma once

#include <string>

#include "base/random.h"

namespace atom::timing {

struct Lengths {
  int prompt = 0, generated = 0;
};

class Trace {
 public:
  // Prompts: lognormal(sigma 0.8, location -1, scale 18), 1 to 2046; prompt and text together: uniform from 0 up to 2048, at least
  // two more than the prompt (Atom, MLSys 2024, as its programs draw them). Shorter where a model has fewer positions: `most`
  // in place of 2048.
  static Trace published(int most);
  static Trace fixed(const Lengths& lengths);

  const std::string& name() const { return name_; }
  int most_positions() const { return most_; }  // that a request takes

  Lengths draw(Random& random) const;
  // A request at a random step of it: what is there already counts as prompt. One met so is longer than one drawn: a long one
  // is there for more steps.
  Lengths in_progress(Random& random) const;

 private:
  std::string name_;
  int most_ = 0;
  Lengths fixed_;  // prompt 0: the published ones
};

// What a sequence holds at a random step of a server at work, by many draws.
struct Occupancy {
  double positions = 0;
  double pages = 0, pages_deviation = 0;  // mean and standard deviation
};
Occupancy occupancy(const Trace& trace, int page_tokens);

}  // namespace atom::timing
