#!/usr/bin/env bash
# Builds the stand-alone tests and benchmarks of the CUDA kernels with nvcc alone, for Hopper.
#   bench/cuda/build.sh [OUT]      OUT: build/cuda-kernels
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/cuda-kernels}
mkdir -p "$out"
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
flags=(-O3 -std=c++17 -fmad=false -gencode=arch=compute_90a,code=sm_90a -I. -Isrc -Xptxas -v)
sources=(src/backend/cuda/{linear,quantize,hopper_pack,hopper_linear_few,hopper_linear_many}.cu
         src/backend/cuda/hopper_{host,plan}.cc tests/backend/cuda/linear_check.cu bench/cuda/linear_bench.cu)
build() {
  local object=$out/$(basename "$1").o
  if [[ ! $object -nt $1 || -n $(find src/backend/cuda bench/cuda -name '*.cuh' -newer "$object" -o -name '*.h' -newer "$object") ]]; then
    "$nvcc" "${flags[@]}" -c "$1" -o "$object" 2>"$object.log" || { cat "$object.log" >&2; exit 1; }
  fi
}
for source in "${sources[@]}"; do build "$source"; done
kernels=("$out"/{linear,quantize,hopper_pack,hopper_linear_few,hopper_linear_many}.cu.o "$out"/hopper_{host,plan}.cc.o)
"$nvcc" -o "$out/linear_check" "$out/linear_check.cu.o" "${kernels[@]}"
"$nvcc" -o "$out/linear_bench" "$out/linear_bench.cu.o" "${kernels[@]}" -lcublasLt \
  -Xlinker -rpath=/usr/local/cuda/lib64
! grep -hE 'C75[0-9]{2}|[1-9][0-9]* bytes spill' "$out"/hopper_*.log
