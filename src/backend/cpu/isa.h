// Instruction sets of this machine, found once at start.
//
//   const Isa isa = choose_isa("");        // the best one
//   isa.kernels->linear(task, scratch);
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/cpu/kernel_table.h"

namespace atom::backend::cpu {

struct Isa {
  std::string name;
  const KernelTable* kernels = nullptr;
};

// Usable here, best first; never empty. "avx512-vnni" (AVX-512 F, BW, DQ, VL, VNNI), "avx2" (AVX2,
// FMA, F16C), "baseline" (x86-64-v2, or plain code on another architecture).
std::vector<Isa> available_isas();

// The named one, or the best for "". Error: a word that is no set, or a set that this machine
// lacks.
Isa choose_isa(std::string_view name);

}  // namespace atom::backend::cpu
