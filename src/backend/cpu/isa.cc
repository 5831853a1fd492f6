#include "backend/cpu/isa.h"

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace atom::backend::cpu {
namespace {

// The builtins also ask the operating system whether it saves the wide registers.
#if defined(__x86_64__)
bool has_f16c() {  // not every compiler's builtin knows this word
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
bool has_avx512_vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

}  // namespace

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_avx512_vnni()) isas.push_back({"avx512-vnni", &avx512::kKernels});
  if (has_avx2()) isas.push_back({"avx2", &avx2::kKernels});
#endif
  isas.push_back({"baseline", &baseline::kKernels});
  return isas;
}

Isa choose_isa(std::string_view name) {
  const std::vector<Isa> isas = available_isas();
  if (name.empty()) return isas.front();
  for (const Isa& isa : isas)
    if (isa.name == name) return isa;
  if (name == "avx512-vnni" || name == "avx2")
    fail("instruction set '{}' is not supported by this machine, whose best one is {}", name,
         isas.front().name);
  fail("instruction set '{}' is not one of baseline, avx2, avx512-vnni", name);
}

}  // namespace atom::backend::cpu
