// The kernels of one instruction set. Compiled once per set with -DATOM_ISA=<its namespace> and its
// compiler flags; everything below has internal linkage, so that the linker never mixes the sets.
#include <utility>

#include "backend/cpu/kernel_table.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace atom::backend::cpu::ATOM_ISA {
namespace {

#include "backend/cpu/vec.h"
//
#include "backend/cpu/tile.h"
//
#include "backend/cpu/linear_scratch.h"
//
#include "backend/cpu/linear_kernel.h"
//
#include "backend/cpu/row_kernel.h"
//
#include "backend/cpu/attention_kernel.h"

}  // namespace

extern const KernelTable kKernels = {
    .panel_columns = kColumns,
    .byte_offset = kByteOffset,
    .row_tile = kTileRows,
    .linear_scratch = linear_scratch,
    .linear = linear,
    .row_scratch = row_scratch,
    .quantize_row = quantize_row,
    .norm_row = norm_row,
    .gate_row = gate_row,
    .widen_row = widen_row,
    .combine_row = combine_row,
    .store_kv = store_kv,
    .attention_scratch = attention_scratch,
    .attention = attention,
    .largest = largest,
    .sum_exp = sum_exp,
};

}  // namespace atom::backend::cpu::ATOM_ISA
