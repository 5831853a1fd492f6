// RoPE, Hadamard transform, quantization and the append to the KV-cache as one kernel on Hopper (sm_90a), with programmatic
// dependent launch: what launch_store_kv does, bit for bit but for the sum of a query's values (DecodeTask::queries), which is added up
// in another order.
#pragma once

#include "backend/cuda/tasks.h"

namespace atom::backend::cuda::hopper {

// has_attention() (hopper_decode.h), at most 65535 rows; rows (f32 or f16), angles and offsets begin at multiples of 16 bytes.
// `places` and the page tables were written before the kernel before this one began.
bool can_store(const AttentionTask& task);
Status launch_store(const AttentionTask& task, Stream stream);

}  // namespace atom::backend::cuda::hopper
