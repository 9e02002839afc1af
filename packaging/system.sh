# shellcheck shell=bash
# A Debian system of our own for a test: made by mmdebstrap once, unpacked for each test, and booted
# with its own systemd in namespaces of its own.
#
# Sourced by the tests of this folder, which need root. It shares nothing with the machine but
# kernel and network: the test's controller is on 127.0.0.1. It offers `make_system`, `boot`,
# `inside`, `offline` (the same system without systemd), and takes everything down when the script
# ends.

suite=${PISTAT_TEST_SUITE:-bookworm}
cache=${PISTAT_PACKAGING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pistat-packaging}
system='' init='' passed=0

say() { printf '== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
ok() { passed=$((passed + 1)); printf '   ok  %s\n' "$*"; }

# Something that has to hold now.
expect() { # sentence, command…
  local sentence=$1
  shift
  if "$@" >"$work/last" 2>&1; then ok "$sentence"; else cat "$work/last" >&2; die "$sentence"; fi
}

# Something that has to become true within a minute.
eventually() { # sentence, command…
  local sentence=$1 try
  shift
  for try in $(seq 120); do
    if "$@" >"$work/last" 2>&1; then ok "$sentence"; return; fi
    sleep 0.5
  done
  cat "$work/last" >&2
  die "$sentence (not after $try attempts)"
}

[ "$(id -u)" = 0 ] || die 'this test needs root: it makes a system and boots it'
work=$(mktemp -d "${TMPDIR:-/var/tmp}/pistat-test.XXXXXX")
children=()
# A function in the background is a shell, and what it started outlives it; unshare waits for its
# child, whatever it is told.
end() { # process
  pkill -KILL -P "$1" || true
  kill "$1" 2>/dev/null || true
}
clean_up() {
  local child
  for child in "${children[@]}"; do end "$child"; done
  stop_system
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT

make_system() {
  local archive=$cache/system-$suite.tar
  mkdir -p "$cache"
  if [ ! -s "$archive" ]; then
    say "making a $suite system"
    mmdebstrap --quiet --variant=minbase --include=adduser,ca-certificates,curl,dbus,procps,sudo,systemd,systemd-sysv "$suite" "$archive.new.tar" \
      "deb ${PISTAT_TEST_MIRROR:-http://deb.debian.org/debian} $suite main"
    mv "$archive.new.tar" "$archive"
  fi
  stop_system
  system=$work/system
  rm -rf --one-file-system "$system"
  mkdir "$system"
  tar -C "$system" -xf "$archive" --exclude='./dev/*'
}

# What stands between the kernel and a system's own first process.
enter_system() { # words to start inside
  cat <<ENTER
set -e
cd /
mount --make-rprivate /
mount --bind $system $system
mount -t proc proc $system/proc
mount --bind $system/proc/sys $system/proc/sys
mount -o remount,bind,ro $system/proc/sys
mount -t sysfs -o ro sysfs $system/sys
mount -t tmpfs tmpfs $system/run
mount -t tmpfs tmpfs $system/tmp
mount -t tmpfs -o mode=755 tmpfs $system/dev
for device in null zero full random urandom tty; do
  : >$system/dev/\$device
  mount --bind /dev/\$device $system/dev/\$device
done
mkdir $system/dev/pts $system/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts $system/dev/pts
ln -s pts/ptmx $system/dev/ptmx
ln -s /proc/self/fd $system/dev/fd
mkdir $system/run/handed
mount --bind $work/handed $system/run/handed
$1
ENTER
}

boot() {
  mkdir -p "$work/handed"
  enter_system "mount -t cgroup2 cgroup2 $system/sys/fs/cgroup
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot $system /lib/systemd/systemd --log-target=console --show-status=no" >"$work/boot.sh"
  setsid unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh "$work/boot.sh" </dev/null >"$work/boot.log" 2>&1 &
  local unshare=$!
  children+=("$unshare")
  init=
  for _ in $(seq 50); do
    init=$(pgrep -P "$unshare" || true)
    [ -z "$init" ] || break
    sleep 0.1
  done
  [ -n "$init" ] || { cat "$work/boot.log" >&2; die 'the system does not boot'; }
  eventually 'the system has booted' is_up
}
is_up() { inside systemctl is-system-running | grep -Eqx 'running|degraded'; }

inside() { # words…
  nsenter --target "$init" --mount --pid --uts --ipc --cgroup --root --wdns=/ env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
}

# The same system, as one that has another init: nothing of systemd runs.
offline() { # words…
  mkdir -p "$work/handed"
  enter_system "exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot $system \"\$@\"" >"$work/offline.sh"
  unshare --mount --pid --uts --ipc --fork --kill-child sh "$work/offline.sh" "$@"
}

stop_system() {
  [ -n "$init" ] || return 0
  kill -KILL "$init" 2>/dev/null || true
  for _ in $(seq 50); do [ -d "/proc/$init" ] || break; sleep 0.1; done
  init=
}

# --- a controller on this machine -----------------------------------------------------------------

# Starts one with these agents, and learns what it tells at its start.
start_controller() { # program, folder of agents
  mkdir -p "$work/controller"
  printf '[http]\ndownloads = "%s"\n' "$2" >"$work/controller/pistat.toml"
  cp config/tasks.toml "$work/controller/tasks.toml"
  "$1" serve --http 127.0.0.1:0 --mqtt 127.0.0.1:0 --state "$work/controller/state" --tasks "$work/controller/tasks.toml" \
    --config "$work/controller/pistat.toml" >"$work/controller/said" 2>"$work/controller/log" </dev/null &
  children+=($!)
  eventually 'the controller says how a Pi is added' grep -q 'add a Pi' "$work/controller/said"
  url=$(sed -n 's|^  dashboard   \(http://[^/]*\)/.*|\1|p' "$work/controller/said" | sed 's/localhost/127.0.0.1/')
  # shellcheck disable=SC2034 # for the tests
  add_a_pi=$(sed -n 's/^  add a Pi    //p' "$work/controller/said")
  admin=$(cat "$work/controller/state/admin.token")
}

api() { # method, path, curl's words…
  local method=$1 path=$2
  shift 2
  curl -fsS -X "$method" -H "Authorization: Bearer $admin" -H 'content-type: application/json' "$@" "$url$path"
}

# Whether a machine is shown with a value under a key, as python's json writes it.
machine_has() { # pi, expression over m
  api GET "/api/pis/$1" | python3 -c 'import json, sys; m = json.load(sys.stdin); print(m); sys.exit(0 if eval(sys.argv[1]) else 1)' "$2"
}

run_task() { # pi, task, more fields of the request
  local run
  run=$(api POST /api/runs -d "{${3:-}\"task\":\"$2\",\"target\":\"$1\",\"confirmed\":true}" | python3 -c 'import json, sys; print(json.load(sys.stdin)["runs"][0])')
  for _ in $(seq 120); do
    api GET "/api/runs/$run" >"$work/run"
    if python3 -c 'import json, sys; sys.exit(0 if json.load(open(sys.argv[1]))["state"] in ("succeeded", "failed", "rejected", "timed_out", "lost", "expired") else 1)' "$work/run"; then break; fi
    sleep 0.5
  done
  api GET "/api/runs/$run/output" >"$work/output"
  cat "$work/run" "$work/output"
  grep -Eq '"state": ?"succeeded"' "$work/run"
}
