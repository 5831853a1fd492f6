// How many pages of the KV-cache a server gets, from the memory that is free once the weights are loaded.
//
//   const PageBudget budget = page_budget({.page_bytes = 1 << 20, .free_bytes = int64_t{8} << 30, .share = 0.9, ...});
#pragma once

#include <cstdint>
#include <string>

namespace atom::serving {

struct PageNeeds {
  int64_t page_bytes = 0;      // of one page in all layers
  int64_t sequence_bytes = 0;  // beside its pages, of each sequence that may run
  int64_t fixed_bytes = 0;     // of a step's rows, whatever the number of pages
  int64_t free_bytes = 0;      // 0: not known, nothing is refused
  double share = 0.9;          // of free_bytes that may be used
  int page_tokens = 64;
  int max_sequences = 64;
  int max_positions = 2048;  // of one sequence
};
struct PageBudget {
  int pages = 0;
  std::string words;  // one sentence on what fits
};
// As many as max_sequences of max_positions fill, or as fit. Error: not even one sequence fits; it says which
// --max-model-len would.
PageBudget page_budget(const PageNeeds& needs);

}  // namespace atom::serving
