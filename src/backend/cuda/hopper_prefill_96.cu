// The prefill kernels of head_dim 96.
#include "backend/cuda/hopper_prefill.cuh"

namespace atom::backend::cuda::hopper::prefill {

template Status launch_of<96>(const PrefillTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper::prefill
