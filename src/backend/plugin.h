// The door between the program and a backend that is a shared library, loaded when it is asked for by name. The
// library exports one C function:
//
//   extern "C" Backend* atom_make_backend(uint64_t abi, const PluginOptions* options);   // the caller owns the result
//
// It returns null when `abi` is not the plugin_abi() it was compiled with, and throws Error, one sentence, when the
// device cannot be used. Program and library are built by the same compiler and share one C++ runtime.
#pragma once

#include <cstdint>
#include <string>

#include "backend/backend.h"

namespace atom::backend {

inline constexpr const char* kPluginFactory = "atom_make_backend";
struct PluginOptions {
  bool batch_invariant = false;  // as OpenOptions
  std::string tuned = {};
};
using PluginFactory = Backend* (*)(uint64_t abi, const PluginOptions* options);

// Changes with the device interface: a number that is raised by hand, and the sizes of what crosses the door.
constexpr uint64_t plugin_abi() {
  constexpr uint64_t kInterface = 6;
  uint64_t abi = kInterface;
  for (const size_t size :
       {sizeof(InputSpec), sizeof(Activation), sizeof(LinearWeight), sizeof(EmbedArgs),
        sizeof(NormArgs), sizeof(QuantizeArgs), sizeof(GateArgs), sizeof(LinearArgs),
        sizeof(SequenceStep), sizeof(NormHeadsArgs), sizeof(AttentionArgs), sizeof(RouteArgs),
        sizeof(CombineArgs), sizeof(SampleRule), sizeof(SampleArgs), sizeof(PackedLinear),
        sizeof(PluginOptions)})
    abi = abi * 1000003 + size;
  return abi;
}

}  // namespace atom::backend
