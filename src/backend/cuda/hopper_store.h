// RoPE, Hadamard transform, quantization and the append to the KV-cache as one kernel on Hopper (sm_90a), with programmatic
// dependent launch: what launch_store_kv does, bit for bit but for the sum of a query's values (DecodeTask::queries), which is added up
// in another order.
#pragma once

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

// head_dim 64, 128 or 256, at most 65535 rows. `places` and the page tables were written before the kernel before this one began.
bool can_store(const AttentionTask& task);
Status launch_store(const AttentionTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper
