#!/bin/sh
# Installs what Atom needs from the distribution's own packages. Prints the one apt line that it runs, asks
# nothing, removes nothing, and does nothing where everything is there.
#
#   tools/setup.sh [build] [test] [lint]      default: build
#
# Exit status: 0 all there, 1 the installation failed, 2 this machine needs a hand (what to do is printed).
set -eu

BUILD="g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libcli11-dev
  libpcre2-dev libutf8proc-dev libopenblas-pthread-dev libtbb-dev libssl-dev"
TEST="libgtest-dev"
# clang-tidy 14, Debian 12's default, cannot compile std::source_location.
LINT="clang-format clang-tidy-16 python3"

packages=""
modules=""
tools=""
[ $# -gt 0 ] || set -- build
for set_name in "$@"; do
  case "$set_name" in
    build)
      packages="$packages $BUILD"
      modules="$modules fmt nlohmann_json CLI11 libpcre2-8 libutf8proc openblas tbb libcrypto"
      tools="$tools c++ cmake ninja pkg-config"
      ;;
    test) packages="$packages $TEST"; modules="$modules gtest" ;;
    lint) packages="$packages $LINT"; tools="$tools clang-format clang-tidy python3" ;;
    *) echo "setup.sh: '$set_name' is not one of build, test, lint" >&2; exit 2 ;;
  esac
done

# ---- Other distributions: look for the things themselves, and say how to get them ------------------------------

other_distribution() {
  absent=""
  for tool in $tools; do
    command -v "$tool" > /dev/null 2>&1 || absent="$absent $tool"
  done
  for module in $modules; do
    pkg-config --exists "$module" 2> /dev/null || absent="$absent $module"
  done
  if [ -z "$absent" ]; then
    return 0
  fi
  cat >&2 << END
This machine has no apt-get, and these are missing:$absent

Needed: a C++20 compiler (GCC 12 or newer), CMake 3.25, Ninja, pkg-config, and the development files of
fmt, nlohmann-json 3.11, CLI11 2, PCRE2, utf8proc, OpenBLAS, oneTBB, OpenSSL 3;
for the tests GoogleTest; for the checks clang-format, clang-tidy and Python 3.

  Fedora      dnf install gcc-c++ cmake ninja-build pkgconf fmt-devel json-devel cli11-devel
              pcre2-devel utf8proc-devel openblas-devel tbb-devel openssl-devel gtest-devel
  Arch        pacman -S gcc cmake ninja pkgconf fmt nlohmann-json cli11 pcre2 libutf8proc openblas
              onetbb openssl gtest
  openSUSE    zypper install gcc-c++ cmake ninja pkgconf fmt-devel nlohmann_json-devel
              cli11-devel pcre2-devel utf8proc-devel openblas-devel tbb-devel
              libopenssl-devel gtest
  macOS       brew install cmake ninja pkgconf fmt nlohmann-json cli11 pcre2 utf8proc openblas tbb
              openssl googletest

(Only Debian 12 is tested.) Install them and run the same command again: it goes on when it finds them.
END
  exit 2
}

if ! command -v apt-get > /dev/null 2>&1 || ! command -v dpkg-query > /dev/null 2>&1; then
  other_distribution
  exit 0
fi

# ---- Debian and its relatives ----------------------------------------------------------------------------------

installed() {
  status=$(dpkg-query -W -f='${Status}' "$1" 2> /dev/null) || return 1
  [ "$status" = "install ok installed" ]
}

missing=""
for package in $packages; do
  installed "$package" || missing="$missing $package"
done
missing=${missing# }
if [ -z "$missing" ]; then
  exit 0
fi

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo > /dev/null 2>&1 && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
    sudo="sudo "
  else
    echo "Not root, and sudo is not at hand. As root, run:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends --no-remove $missing" >&2
    exit 2
  fi
fi

# DEBIAN_FRONTEND: no questions. --no-remove: apt stops instead of removing what is installed.
install="apt-get install -y --no-install-recommends --no-remove $missing"
as_root="${sudo}env DEBIAN_FRONTEND=noninteractive"
echo "Installing what is missing:"
echo "  ${sudo}apt-get update && $as_root $install"
$as_root apt-get update -q || echo "setup.sh: apt-get update failed; trying with the lists at hand" >&2
# shellcheck disable=SC2086
if ! $as_root $install; then
  echo "setup.sh: the installation failed. Where apt says that packages would be removed, something" >&2
  echo "installed conflicts with the list above; nothing has been changed." >&2
  exit 1
fi
