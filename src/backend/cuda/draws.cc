#include "backend/cuda/draws.h"

#include <algorithm>

namespace atom::backend::cuda {

DrawSlot::DrawSlot(size_t rows)
    : memory(rows * (sizeof(double) + sizeof(DrawRule) + 2 * sizeof(int32_t))),
      most_rows(rows),
      log_probabilities(static_cast<double*>(memory.data())),
      rules(reinterpret_cast<DrawRule*>(log_probabilities + rows)),
      ids(reinterpret_cast<int32_t*>(rules + rows)),
      targets(ids + rows) {}

std::shared_ptr<DrawSlot> DrawSlots::free_slot(size_t rows) {
  const auto is_free = [](const std::shared_ptr<DrawSlot>& slot) {
    return slot.use_count() == 1 && slot->done.reached();
  };
  for (const std::shared_ptr<DrawSlot>& slot : slots_)
    if (slot->most_rows >= rows && is_free(slot)) return slot;
  std::erase_if(slots_, [&](const auto& slot) { return slot->most_rows < rows && is_free(slot); });
  slots_.push_back(std::make_shared<DrawSlot>(std::max<size_t>(rows, 64)));
  return slots_.back();
}

}  // namespace atom::backend::cuda
