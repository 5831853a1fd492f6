// cuBLASLt beside the kernels of this folder, for comparisons. The library is opened when it is first asked for, and
// nothing else needs it.
#pragma once

#include "backend/backend.h"

namespace atom::backend::cuda {

// Algorithms of the library's heuristics that are offered.
inline constexpr int kLibraryChoices = 5;

}  // namespace atom::backend::cuda
