#!/bin/sh
# Packs programs with every shared library they need, the C library and its loader included, into one archive
# that runs on any x86-64 Linux, whatever is installed there:
#
#   tools/bundle.sh OUT.tar.xz build/release/atom [more programs and plug-ins]
#   tar xf OUT.tar.xz && ./bundle/atom doctor
#
# A plug-in (*.so) goes beside the libraries, where the programs of the bundle look for it. An archive of more than 25 MiB
# is an error: one architecture of one machine fits (-DATOM_CUDA_ARCHITECTURES=90a-real).
set -eu

if [ $# -lt 2 ]; then
  echo "usage: $0 OUT.tar.xz PROGRAM|PLUGIN.so [...]" >&2
  exit 2
fi
out=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bundle/lib" "$work/bundle/bin"

for program in "$@"; do
  name=$(basename "$program")
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | while read -r library; do
    cp -L "$library" "$work/bundle/lib/"
  done
  case $name in
    *.so)
      cp "$program" "$work/bundle/lib/"
      # What a device driver asks for: these belong to the bundle's C library, not to the machine's.
      libc=$(ldd "$program" | awk '$1 == "libc.so.6" {print $3}')
      for part in libdl.so.2 libpthread.so.0 librt.so.1 libm.so.6; do
        cp -L "$(dirname "$libc")/$part" "$work/bundle/lib/"
      done
      continue
      ;;
  esac
  cp "$program" "$work/bundle/bin/$name"
  strip --strip-unneeded "$work/bundle/bin/$name"
  loader=$(ldd "$program" | awk '$1 ~ /ld-linux/ {print $1}')
  cp -L "$loader" "$work/bundle/lib/loader"
  cat > "$work/bundle/$name" <<'EOF'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
path=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$here/lib/loader" --library-path "$path" "$here/bin/$(basename "$0")" "$@"
EOF
  chmod 755 "$work/bundle/$name"
done
for library in "$work"/bundle/lib/*.so*; do
  strip --strip-unneeded "$library" 2>/dev/null || true
done
tar -C "$work" -cJf "$out" bundle
bytes=$(wc -c < "$out")
unpacked=$(du -sk "$work/bundle" | awk '{print $1}')
echo "$out: $bytes bytes, $unpacked KiB unpacked"
most=$((25 * 1024 * 1024))
if [ "$bytes" -gt "$most" ]; then
  echo "$0: $out has $bytes bytes, more than $most" >&2
  rm -f "$out"
  exit 1
fi
