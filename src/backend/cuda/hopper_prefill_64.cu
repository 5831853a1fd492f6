// The prefill kernels of head_dim 64.
#include "backend/cuda/hopper_prefill.cuh"

namespace atom::backend::cuda::hopper::prefill {

template Status launch_of<64>(const PrefillTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper::prefill
