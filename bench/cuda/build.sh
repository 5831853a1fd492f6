#!/usr/bin/env bash
# Builds the stand-alone tests and benchmarks of the CUDA kernels with nvcc alone, for Hopper.
#   bench/cuda/build.sh [OUT]      OUT: build/cuda-kernels
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/cuda-kernels}
mkdir -p "$out"
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
flags=(-O3 -std=c++20 -fmad=false -gencode=arch=compute_90a,code=sm_90a -I. -Isrc -Xptxas -v)
build() {  # SOURCES...; the objects go to `objects`
  local source object
  objects=()
  for source in "$@"; do
    object=$out/$(basename "$source").o
    objects+=("$object")
    if [[ ! $object -nt $source || -n $(find src/backend/cuda bench/cuda tests/backend/cuda -name '*.cuh' -newer "$object" -o -name '*.h' -newer "$object") ]]; then
      "$nvcc" "${flags[@]}" -c "$source" -o "$object" 2>"$object.log" || { cat "$object.log" >&2; exit 1; }
    fi
  done
}
link() {  # NAME LIBRARIES...; of `objects` and the program's own source
  local name=$1 kernels=("${objects[@]}")
  local source=bench/cuda/$name.cu
  [[ -e $source ]] || source=tests/backend/cuda/$name.cu
  shift
  build "$source"
  objects+=("${kernels[@]}")
  "$nvcc" -o "$out/$name" "${objects[@]}" "$@"
  objects=("${kernels[@]}")
}
cuda=src/backend/cuda
build $cuda/{linear,quantize,hopper_pack,hopper_linear_few,hopper_linear_many,hopper_grouped_few,hopper_grouped_many}.cu $cuda/hopper_{host,plan}.cc
link linear_check
link linear_bench -lcublasLt -Xlinker -rpath=/usr/local/cuda/lib64
build $cuda/{attend,store_kv,hopper_decode_64,hopper_decode_128,hopper_decode_256}.cu $cuda/hopper_decode{,_plan}.cc
link decode_check
link decode_bench
build $cuda/{attend,store_kv,hopper_prefill_64,hopper_prefill_128,hopper_prefill_256}.cu $cuda/hopper_prefill{,_plan}.cc
link prefill_check
link prefill_bench
! grep -hE 'C75[0-9]{2}|[1-9][0-9]* bytes spill' "$out"/hopper_*.log
