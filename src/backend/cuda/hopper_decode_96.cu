// The decode kernels of head_dim 96.
#include "backend/cuda/hopper_decode.cuh"

namespace atom::backend::cuda::hopper::decode {

template Status launch_of<96>(const DecodeTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper::decode
