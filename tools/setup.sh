#!/bin/sh
# Installs what Atom needs from the distribution's own packages. Prints the apt lines that it runs, asks
# nothing, and does nothing where everything is there. It removes nothing but a Boost before 1.78, which cannot
# stay beside a newer one, and says so.
#
#   tools/setup.sh [build] [test] [lint] [fuzz]      default: build
#
# Exit status: 0 all there, 1 the installation failed, 2 this machine needs a hand (what to do is printed).
set -eu

BUILD="g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libcli11-dev
  libpcre2-dev libutf8proc-dev libopenblas-pthread-dev libtbb-dev libssl-dev
  libtomlplusplus-dev"
# Boost's headers (Asio and Beast), 1.78 or newer: what is installed, else the first of these that apt offers.
BOOST="libboost1.83-dev libboost1.81-dev libboost-dev"
BOOST_MINIMUM=107800
TEST="libgtest-dev"
# clang-tidy 14, Debian 12's default, cannot compile std::source_location.
LINT="clang-format clang-tidy-16 python3"
# The compiler and its libFuzzer and sanitizers.
FUZZ="clang-16 libclang-rt-16-dev"

packages=""
modules=""
tools=""
boost=""  # "needed" for the sets that need it
[ $# -gt 0 ] || set -- build
for set_name in "$@"; do
  case "$set_name" in
    build)
      packages="$packages $BUILD"
      modules="$modules fmt nlohmann_json CLI11 libpcre2-8 libutf8proc openblas tbb openssl tomlplusplus"
      boost=needed
      tools="$tools c++ cmake ninja pkg-config"
      ;;
    test) packages="$packages $TEST"; modules="$modules gtest" ;;
    lint) packages="$packages $LINT"; tools="$tools clang-format clang-tidy python3" ;;
    fuzz) packages="$packages $FUZZ"; tools="$tools clang++-16" ;;
    *) echo "setup.sh: '$set_name' is not one of build, test, lint, fuzz" >&2; exit 2 ;;
  esac
done

# The number in Boost's own header, 0 without one.
boost_version() {
  for folder in /usr/include /usr/local/include /opt/homebrew/include; do
    if [ -r "$folder/boost/version.hpp" ]; then
      sed -n 's/^#define BOOST_VERSION \([0-9]*\).*/\1/p' "$folder/boost/version.hpp"
      return
    fi
  done
  echo 0
}
if [ -n "$boost" ] && [ "$(boost_version)" -ge "$BOOST_MINIMUM" ]; then
  boost=""
fi

# ---- Other distributions: look for the things themselves, and say how to get them ------------------------------

other_distribution() {
  absent=""
  for tool in $tools; do
    command -v "$tool" > /dev/null 2>&1 || absent="$absent $tool"
  done
  for module in $modules; do
    pkg-config --exists "$module" 2> /dev/null || absent="$absent $module"
  done
  [ -z "$boost" ] || absent="$absent boost-1.78"
  if [ -z "$absent" ]; then
    return 0
  fi
  cat >&2 << END
This machine has no apt-get, and these are missing:$absent

Needed: a C++20 compiler (GCC 12 or newer), CMake 3.25, Ninja, pkg-config, and the development files of
fmt, nlohmann-json 3.11, CLI11 2, PCRE2, utf8proc, OpenBLAS, oneTBB, OpenSSL 3, Boost 1.78 or newer
(headers), toml++; for the tests GoogleTest; for the checks clang-format, clang-tidy and Python 3; to
fuzz clang 16 with compiler-rt, as clang++-16.

  Fedora      dnf install gcc-c++ cmake ninja-build pkgconf fmt-devel json-devel cli11-devel
              pcre2-devel utf8proc-devel openblas-devel tbb-devel openssl-devel gtest-devel
              boost-devel tomlplusplus-devel
  Arch        pacman -S gcc cmake ninja pkgconf fmt nlohmann-json cli11 pcre2 libutf8proc openblas
              onetbb openssl gtest boost tomlplusplus
  openSUSE    zypper install gcc-c++ cmake ninja pkgconf fmt-devel nlohmann_json-devel
              cli11-devel pcre2-devel utf8proc-devel openblas-devel tbb-devel
              libopenssl-devel gtest libboost_headers-devel tomlplusplus-devel
  macOS       brew install cmake ninja pkgconf fmt nlohmann-json cli11 pcre2 utf8proc openblas tbb
              openssl googletest boost tomlplusplus

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
if [ -z "$missing$boost" ]; then
  exit 0
fi

# The first package of the list whose Boost is new enough.
choose_boost() {
  for package in $BOOST; do
    version=$(apt-cache policy "$package" 2> /dev/null | sed -n 's/^ *Candidate: \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086
    set -- $version
    if [ $# -eq 2 ] && [ $(($1 * 100000 + $2 * 100)) -ge "$BOOST_MINIMUM" ]; then
      echo "$package"
      return
    fi
  done
}

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo > /dev/null 2>&1 && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
    sudo="sudo "
  else
    [ -z "$boost" ] || missing="$missing $(choose_boost)"
    echo "Not root, and sudo is not at hand. As root, run:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends --no-remove $missing" >&2
    exit 2
  fi
fi

# DEBIAN_FRONTEND: no questions. --no-remove: apt stops instead of removing what is installed.
as_root="${sudo}env DEBIAN_FRONTEND=noninteractive"
echo "Installing what is missing:"
echo "  ${sudo}apt-get update"
$as_root apt-get update -q || echo "setup.sh: apt-get update failed; trying with the lists at hand" >&2
replaced=""
if [ -n "$boost" ]; then
  boost=$(choose_boost)
  if [ -z "$boost" ]; then
    echo "setup.sh: no Boost of at least 1.78 is installed, and apt offers none ($BOOST)." >&2
    echo "Install its headers by hand and run the same command again." >&2
    exit 2
  fi
  replaced=$(LC_ALL=C apt-get -s install --no-install-recommends "$boost" 2> /dev/null | sed -n 's/^Remv \([^ ]*\).*/\1/p' | tr '\n' ' ')
  [ -n "$replaced" ] || missing="$missing $boost"
fi

run_install() {
  echo "  $as_root $*"
  # shellcheck disable=SC2086
  if ! $as_root "$@"; then
    echo "setup.sh: the installation failed. Where apt says that packages would be removed, something" >&2
    echo "installed conflicts with the list above; nothing has been changed." >&2
    exit 1
  fi
}
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086
  run_install apt-get install -y --no-install-recommends --no-remove $missing
fi
if [ -n "$replaced" ]; then
  echo "$boost replaces ${replaced% }, which is older than 1.78:"
  run_install apt-get install -y --no-install-recommends "$boost"
fi
