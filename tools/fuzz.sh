#!/bin/sh
# Builds the fuzz targets with clang and runs them. Prints a line for each; the last line is "N passed, M failed".
#
#   tools/fuzz.sh MINUTES|SECONDSs [TARGET...]      targets: files of fuzz/corpus; default: all
#
# MINUTES, or SECONDS with an s behind (20s), whole numbers, are the time of each target; tools/jobs.sh says how many run at once. Inputs that reach new code are
# kept in build/fuzz/corpus and used again; what breaks a target is written to build/fuzz/findings, with the command to replay
# it. A target stops at its first finding.
set -eu
cd "$(dirname "$0")/.."

give_up() {
  echo "fuzz: $1" >&2
  echo "0 passed, 1 failed"
  exit 1
}

length=${1:-}
case "${length%s}" in
  "" | *[!0-9]* | 0*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; give_up "MINUTES must be a whole number above 0, but is '$length'" ;;
esac
case $length in
  *s) seconds=${length%s} ;;
  *) seconds=$((length * 60)) ;;
esac
shift
for target in "$@"; do
  [ -d "fuzz/corpus/$target" ] || give_up "'$target' is not one of: $(ls fuzz/corpus | tr '\n' ' ')"
done
# shellcheck disable=SC2046  # a list
[ $# -gt 0 ] || set -- $(ls fuzz/corpus)

tools/setup.sh build fuzz || give_up "packages are missing"
jobs=$(tools/jobs.sh)
cmake --preset fuzz > /dev/null || give_up "cmake --preset fuzz failed"
programs=$(printf 'fuzz_%s ' "$@")
# shellcheck disable=SC2086  # a list
cmake --build --preset fuzz -j "$jobs" --target $programs || give_up "the build failed"

build=build/fuzz
mkdir -p "$build/findings" "$build/logs"
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_stack_use_after_return=1:strict_string_checks=1"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-}:print_stacktrace=1"

# What a process of xargs runs: BUILD SECONDS TARGET
one='
build=$1 seconds=$2 target=$3
log=$build/logs/$target.log
mkdir -p "$build/corpus/$target"
status=0
"$build/fuzz/fuzz_$target" "$build/corpus/$target" "fuzz/corpus/$target" -dict="fuzz/dictionaries/$target.dict" \
  -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 \
  -artifact_prefix="$build/findings/$target-" > "$log" 2>&1 || status=$?
number() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
edges=$(sed -n "s/.* cov: \([0-9]*\) .*/\1/p" "$log" | tail -n 1)
line="$target: $(number number_of_executed_units) executions, $(number average_exec_per_sec)/s, ${edges:-0} edges"
finding=$(sed -n "s/.*Test unit written to \(.*\)/\1/p" "$log" | tail -n 1)
if [ "$status" -eq 0 ]; then
  echo "$line, no finding"
else
  echo "$line, FOUND: $(grep -m 1 -E "^==.*ERROR|runtime error|what\(\):|^SUMMARY" "$log" || echo "status $status, see $log")"
  [ -z "$finding" ] || echo "  replay: $build/fuzz/fuzz_$target $finding"
  echo "$target" >> "$build/failed"
fi'
rm -f "$build/failed"
printf '%s\n' "$@" | xargs -P "$jobs" -I {} sh -c "$one" fuzz "$build" "$seconds" {} || true

failed=0
[ ! -f "$build/failed" ] || failed=$(grep -c . "$build/failed")
echo "$(($# - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
