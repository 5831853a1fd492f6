#!/bin/sh
# Compiles with nvcc and looks at what ptxas says of the kernels: spilled registers, and the warnings C7510 to C7519, that
# wgmma instructions wait for each other. Either makes a Hopper kernel slow without being wrong.
#
#   tools/nvcc_checked.sh fail|show [LAUNCHER] nvcc ... -Xptxas -v -c KERNEL.cu -o KERNEL.o
#
# fail: such a line is an error, and the object is removed; show: it is printed. Everything else that ptxas tells of every
# kernel is left out.
set -u

mode=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
"$@" 2> "$log" || status=$?
if [ "$status" -ne 0 ]; then
  cat "$log" >&2
  exit "$status"
fi
found=$(grep -E 'C751[0-9]|[1-9][0-9]* bytes spill' "$log")
grep -vE '^ptxas info|bytes stack frame|^$' "$log" >&2
[ -n "$found" ] || exit 0
printf '%s\n' "$found" >&2
[ "$mode" = fail ] || exit 0
echo "nvcc_checked.sh: a kernel spills registers or serializes wgmma, see above" >&2
object=""
for word in "$@"; do
  [ "$object" = -o ] && rm -f "$word"
  object=$word
done
exit 1
