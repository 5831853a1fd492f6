#!/usr/bin/env bash
# Builds the stand-alone tests and benchmarks of the CUDA kernels with nvcc alone, for Hopper. (The CMake preset
# cuda-kernels does the same.) Every .cu of bench/cuda and tests/backend/cuda is a program, linked with what it needs of
# an archive of all kernels, src/backend/cuda/*.cu, and of their host sides that use no library, hopper_*.cc.
#   bench/cuda/build.sh [OUT]      OUT: build/cuda-kernels; JOBS: as many compilers at once [CPUs]; DEFINES: for the compiler,
#                                  such as -DATOM_RACECHECK for programs that compute-sanitizer's racecheck will run
set -euo pipefail
cd "$(dirname "$0")/../.."
export out=${1:-build/cuda-kernels}
mkdir -p "$out"
export nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
compile() {  # SOURCE: anew where a header is newer
  local object log
  object=$out/$(basename "$1").o
  log=$object.log
  if [[ -e $object && $object -nt $1 && -z $(find src/backend/cuda src/format bench/cuda tests/backend/cuda \
    \( -name '*.cuh' -o -name '*.h' \) -newer "$object") ]]; then
    return
  fi
  rm -f "$object"
  "$nvcc" -O3 -std=c++20 -fmad=false ${DEFINES:-} -gencode=arch=compute_90a,code=sm_90a -I. -Isrc -Xptxas -v \
    -c "$1" -o "$object" 2> "$log" || { cat "$log" >&2; return 1; }
}
export -f compile
kernels=(src/backend/cuda/*.cu src/backend/cuda/hopper_*.cc)
programs=(bench/cuda/*.cu tests/backend/cuda/*.cu)
printf '%s\n' "${kernels[@]}" "${programs[@]}" |
  xargs -P "${JOBS:-$(nproc)}" -I '{}' bash -c 'compile {}'
objects=()
for source in "${kernels[@]}"; do objects+=("$out/$(basename "$source").o"); done
rm -f "$out/libkernels.a"
ar rcs "$out/libkernels.a" "${objects[@]}"
for source in "${programs[@]}"; do
  libraries=()
  if grep -qE '<cublasLt.h>|linear_library.cuh' "$source"; then
    libraries=(-lcublasLt -Xlinker "-rpath=$(dirname "$(dirname "$nvcc")")/lib64")
  fi
  "$nvcc" -o "$out/$(basename "$source" .cu)" "$out/$(basename "$source").o" "$out/libkernels.a" \
    ${libraries[@]+"${libraries[@]}"}
done
! grep -hE 'C751[0-9]|[1-9][0-9]* bytes spill' "$out"/hopper_*.log
