#include "timing/selected.h"

#include <cstdint>
#include <utility>

#include "base/random.h"

namespace atom::timing {

// Made in the first, unrecorded run of a step: nothing is allocated while a device records.
void* SelectedBackend::random_input(const backend::Activation& like) {
  for (const Input& input : inputs_)
    if (input.rows == like.rows && input.segments == like.spec->segments) return input.data.data();
  Random random(inputs_.size() + 1);
  std::vector<float> values(static_cast<size_t>(like.rows) *
                            static_cast<size_t>(like.spec->segments.k()));
  for (float& value : values) value = static_cast<float>(random.normal());
  const backend::Buffer rows = inner().allocate(values.size() * sizeof(float));
  inner().upload(rows.data(), values.data(), values.size() * sizeof(float));
  Input input{like.spec->segments, like.rows,
              inner().allocate(inner().activation_bytes(*like.spec, like.rows))};
  inner().quantize({.x = rows.as<float>(), .y = {input.data.data(), like.spec, like.rows}});
  inner().synchronize();
  inputs_.push_back(std::move(input));
  return inputs_.back().data.data();
}

void SelectedBackend::linear(const backend::LinearArgs& args) {
  const bool is_head = args.weights.size() == 1 && args.weights.front() == head_;
  if (!runs(is_head ? Kind::kHead : Kind::kLinears)) return;
  if (all_) return inner().linear(args);
  backend::LinearArgs own = args;
  own.x.data = random_input(args.x);
  inner().linear(own);
}

}  // namespace atom::timing
