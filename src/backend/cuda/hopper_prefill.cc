// Which prefill kernel a task takes. They are compiled apart, one file for each head_dim.
#include "backend/cuda/hopper_prefill.h"

#include <cuda_runtime_api.h>

#include "backend/cuda/hopper_decode.h"

namespace atom::backend::cuda::hopper {
namespace prefill {

template <int kDim>
Status launch_of(const PrefillTask& task, Stream stream);
extern template Status launch_of<64>(const PrefillTask& task, Stream stream);
extern template Status launch_of<96>(const PrefillTask& task, Stream stream);
extern template Status launch_of<128>(const PrefillTask& task, Stream stream);
extern template Status launch_of<256>(const PrefillTask& task, Stream stream);

}  // namespace prefill

bool can_prefill(const PrefillTask& t) {
  const int key_bits = t.cache.side[0].bits, value_bits = t.cache.side[1].bits;
  const bool alike = key_bits == value_bits && (key_bits == 4 || key_bits == 8 || key_bits == 16);
  return has_attention(t.head_dim) && (alike || (key_bits == 8 && value_bits == 4)) &&
         t.cache.tokens == kPrefillTokens && (t.has_open_page == 0 || value_bits == 4);
}

Status launch_prefill(const PrefillTask& task, Stream stream) {
  if (!can_prefill(task)) return cudaErrorInvalidValue;
  if (task.tile_count == 0) return cudaSuccess;
  if (task.head_dim == 64) return prefill::launch_of<64>(task, stream);
  if (task.head_dim == 96) return prefill::launch_of<96>(task, stream);
  if (task.head_dim == 128) return prefill::launch_of<128>(task, stream);
  return prefill::launch_of<256>(task, stream);
}

}  // namespace atom::backend::cuda::hopper
