// The tiles of a step for the prefill kernel, decided on the host: a pure function of the sequences' rows and positions
// and of the number of query heads that share a KV head. All layers of a step with as many share them.
//
//   const std::vector<PrefillTile> tiles = plan_prefill(sequences, heads / kv_heads);   // to be uploaded
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/hopper_prefill.h"

namespace atom::backend::cuda::hopper {

// A sequence's rows in the step.
struct PrefillSequence {
  const int32_t* page_table = nullptr;  // device memory
  int first_row = 0;
  int rows = 0;
  int position = 0;  // of first_row
  int open_page = 0;
};
// Those with most to read come first. `group`: query heads a KV head.
std::vector<PrefillTile> plan_prefill(std::span<const PrefillSequence> sequences, int group);

}  // namespace atom::backend::cuda::hopper
