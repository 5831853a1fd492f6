#!/bin/sh
# Prints how many compilers may run at once: one per processor, and 2 GB of available memory for each.
set -eu
processors=$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1)
memory_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2> /dev/null || true)
[ -n "$memory_kb" ] || memory_kb=2097152
limit=$(cat /sys/fs/cgroup/memory.max 2> /dev/null || echo max)  # bytes, inside a container
if [ "$limit" != max ] && [ "$((limit / 1024))" -lt "$memory_kb" ]; then
  memory_kb=$((limit / 1024))
fi
jobs=$((memory_kb / 2097152))
[ "$jobs" -ge 1 ] || jobs=1
[ "$jobs" -le "$processors" ] || jobs=$processors
echo "$jobs"
