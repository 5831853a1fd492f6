// The entry that libFuzzer calls, for the target that ATOM_FUZZ_TARGET names.
#include <cstddef>
#include <cstdint>

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  atom::fuzz::ATOM_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
