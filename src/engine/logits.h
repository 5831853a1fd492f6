// What becomes of logits on the host: changes before sampling, probabilities for the client.
#pragma once

#include <span>
#include <vector>

#include "backend/operations.h"
#include "engine/scheduler.h"

namespace atom::engine {

// Penalties, bias, and what min_tokens forbids, for the next id of `sequence`, whose logits are `row`.
void append_edits(const Sequence& sequence, std::span<const int> eos_ids, int row,
                  std::vector<backend::LogitEdit>& edits);

// Of `id` and of the `count` most likely ids. -infinity where a logit is; NaN of logits that are not numbers.
Logprobs logprobs_of(std::span<const float> logits, int32_t id, int count);

}  // namespace atom::engine
