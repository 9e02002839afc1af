# shellcheck shell=bash
# What cross-building needs: a Rust compiler, zig as C compiler and linker for every board, and
# cargo-zigbuild between them.
#
# Sourced by `build`. It offers one function, `get_toolchain`, after which `cargo zigbuild` works
# and `toolchain` says which of the two it is:
#   rustup   a maintainer's own machine: stable Rust of rustup, with its component rust-src (agents) and the targets with glibc (controllers)
#   debian   Debian's rustc-web, cargo-web and the library's sources, unpacked into a folder of ours: nothing is installed, no other compiler is touched
# zig and cargo-zigbuild come from PyPI into a virtual environment, unless they are installed
# already.
#
# It refuses to guess: what is missing is named, and nothing is built with half a toolchain.

readonly ZIG=0.17.1
readonly ZIGBUILD=0.24.0

# Packages of Debian's compiler; the last one is the standard library for 64-bit boards with glibc,
# where the controller runs.
readonly DEBIAN_PACKAGES='rustc-web cargo-web rust-web-src libstd-rust-web-dev libstd-rust-web-dev:arm64'

cache=${PISTAT_PACKAGING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pistat-packaging}
toolchain=${PISTAT_TOOLCHAIN:-}

die() { printf '%s\n' "$*" >&2; exit 69; }
say() { printf '== %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

get_toolchain() { # targets…
  mkdir -p "$cache"
  forget_inherited
  if [ -z "$toolchain" ]; then
    if rustup_has "$@"; then toolchain=rustup; else toolchain=debian; fi
  fi
  case $toolchain in
    rustup) rustup_has "$@" || die "rustup lacks something, and could not fetch it: rustup component add rust-src; rustup target add $*" ;;
    debian) use_debian ;;
    *) die "PISTAT_TOOLCHAIN is $toolchain: it is rustup or debian" ;;
  esac
  use_zig
  say "$toolchain: $(rustc --version), zig $(zig_version)"
}

# An inherited linker silently wins over cargo-zigbuild's, and inherited flags replace those of the
# target.
forget_inherited() {
  local name
  for name in $(compgen -e); do
    case $name in
      CARGO_TARGET_*_LINKER | CARGO_TARGET_*_RUSTFLAGS | CARGO_TARGET_*_RUNNER | CARGO_BUILD_* | CARGO_ENCODED_RUSTFLAGS | CARGO | RUSTFLAGS | RUSTC | RUSTC_* | \
        CC | CC_* | CXX | CXX_* | AR | AR_* | CFLAGS | CFLAGS_* | CXXFLAGS | CXXFLAGS_* | HOST_CC | HOST_CXX | TARGET_CC | TARGET_CXX) unset "$name" ;;
    esac
  done
}

# Programs for musl bring their own standard library, built from its sources; those for glibc take
# what rustup has compiled.
rustup_has() { # targets…
  have rustup || return 1
  local target
  for target in "$@"; do
    case $target in
      *-musl*) has_sources "$(rustc --print sysroot)" || rustup component add rust-src >/dev/null 2>&1 || return 1 ;;
      *) rustup target list --installed 2>/dev/null | grep -qx "$target" || rustup target add "$target" >/dev/null 2>&1 || return 1 ;;
    esac
  done
}

has_sources() { [ -f "$1/lib/rustlib/src/rust/library/std/Cargo.toml" ]; } # sysroot

# --- Debian's compiler ----------------------------------------------------------------------------

use_debian() {
  [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || die "this needs rustup with the targets, or Debian on amd64 with its package rustc-web"
  [ -e "$cache/debian/tree/complete" ] || fetch_debian
  local libraries=$cache/debian/tree/usr/lib/x86_64-linux-gnu
  export PATH=$cache/debian/tree/usr/bin:$PATH
  export LD_LIBRARY_PATH=$libraries
  # A folder of its own: two versions of cargo need not agree about what lies in one.
  export CARGO_HOME=$cache/cargo-home
  unset RUSTUP_TOOLCHAIN
  local missing
  missing=$(ldd "$cache/debian/tree/usr/bin/cargo" "$cache/debian/tree/usr/bin/rustc" "$libraries"/librustc_driver-*.so | awk '/not found/ { print $1 }' | sort -u)
  [ -z "$missing" ] || die "Debian's compiler lacks $(tr '\n' ' ' <<<"$missing"): apt install libcurl4 libssh2-1 libsqlite3-0 libssl3 libxml2 libz3-4 libedit2"
}

# Own lists of packages, so that the foreign architecture never reaches the system's dpkg.
fetch_debian() {
  local folder=$cache/debian libraries
  say "fetching Debian's compiler into $folder"
  rm -rf "$folder"
  mkdir -p "$folder"/{lists/partial,archives/partial,debs,tree}
  cat >"$folder/apt.conf" <<CONF
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder";
CONF
  (
    export APT_CONFIG=$folder/apt.conf
    apt-get -qq update || true # sources of others may lack an architecture; what matters is asked for next
    # These libraries carry versions in their names: Debian is asked for them, twice, since one of
    # them needs others.
    libraries=$(libraries_of rustc-web cargo-web "$(apt-cache depends libstd-rust-web-dev | awk '/Depends: libstd/ { print $2; exit }')")
    # shellcheck disable=SC2086 # lists of words
    libraries="$libraries $(libraries_of $libraries)"
    cd "$folder/debs" || exit
    # shellcheck disable=SC2086
    apt-get -qq download $DEBIAN_PACKAGES "$(apt-cache depends libstd-rust-web-dev | awk '/Depends: libstd/ { print $2; exit }')" $libraries
  ) || die "Debian's packages $DEBIAN_PACKAGES could not be fetched"
  local package
  for package in "$folder"/debs/*.deb; do dpkg -x "$package" "$folder/tree"; done
  has_sources "$folder/tree/usr" || die "rust-web-src holds no standard library where rustc looks for it"
  touch "$folder/tree/complete"
}

libraries_of() { # packages…
  apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    awk '$1 == "Depends:" && $2 ~ /^lib(llvm|git2|mbed|http-parser)/ { print $2 }' | sort -u
}

# --- zig ------------------------------------------------------------------------------------------

use_zig() {
  have cargo-zigbuild && have zig && return
  if [ ! -x "$cache/python/bin/cargo-zigbuild" ]; then
    say "fetching zig $ZIG and cargo-zigbuild $ZIGBUILD"
    # The library path is for Debian's compiler alone.
    env -u LD_LIBRARY_PATH python3 -m venv "$cache/python" || die 'a virtual environment of Python could not be made: apt install python3-venv'
    env -u LD_LIBRARY_PATH "$cache/python/bin/pip" install --quiet --disable-pip-version-check "ziglang==$ZIG" "cargo-zigbuild==$ZIGBUILD" || die 'zig could not be fetched from PyPI'
  fi
  export PATH=$cache/python/bin:$PATH
  export XDG_CACHE_HOME=$cache/xdg
}

zig_version() {
  if have zig; then zig version; else "$cache/python/bin/python" -m ziglang version; fi
}
