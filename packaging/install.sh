#!/bin/sh
# Installs, updates or removes the Pi Stat agent on this machine. The controller serves this file;
# it needs nothing else from the internet.
#
#   printf %s TOKEN | sh install.sh --controller-url http://controller:8000 --pi-id pi-1 [options]
#   sh install.sh --uninstall
#
# Run it again to update the agent or to change what it was told: what is there already is left as
# it is. Exit codes: 0 done · 3 installed, but nothing starts it by itself here · 64 wrong usage ·
# 69 no agent for this machine, or it cannot be fetched · 73 something cannot be written · 75 the
# controller has not let this machine in · 77 not root · 78 no join token, and not enrolled yet, or
# nothing by which the root runner could be told its controller.
set -eu
umask 022

usage() {
  cat <<'USAGE'
usage: sh install.sh --controller-url URL --pi-id ID [options]      the join token comes on standard input, at the first time
       sh install.sh --uninstall

  --controller-url URL   the controller's address, http(s)://host:8000
  --pi-id ID             a stable name for this machine: letters, digits, - and _
  --label TEXT           the name that people see
  --ca FILE              certificates (PEM) to believe instead of the system's, for https://
  --with-root-tasks      also install the root runner: updates, restarts of services, reboot, shutdown
  --uninstall            stop the agent and remove everything that belongs to it, its credential too
USAGE
}

# --- what the controller filled in ----------------------------------------------------------------

# One line for each program that the controller hands out: its name and its SHA-256. This file was
# verified, and so they are.
checksums() {
  cat <<'PISTAT_END'
@CHECKSUMS@
PISTAT_END
}

agent_unit() {
  cat <<'PISTAT_END'
@pistat-agent.service@
PISTAT_END
}

runner_socket() {
  cat <<'PISTAT_END'
@pistat-runner.socket@
PISTAT_END
}

runner_unit() {
  cat <<'PISTAT_END'
@pistat-runner@.service@
PISTAT_END
}

# --- telling --------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }
fail() { # exit code, sentence…
  code=$1
  shift
  printf 'pistat-install: %s\n' "$*" >&2
  exit "$code"
}
wrong() {
  usage >&2
  fail 64 "$*"
}
have() { command -v "$1" >/dev/null 2>&1; }

# --- what is wanted -------------------------------------------------------------------------------

user=pistat-agent
program=/usr/local/bin/pistat-agent
units=/etc/systemd/system
config=/etc/pistat/agent.toml
state=/var/lib/pistat-agent
runner_state=/var/lib/pistat-runner
runner_sockets=/run/pistat-runner
url='' pi='' label='' ca='' root_tasks=no uninstall=no unpinned=no token='' temporary='' agent=''

read_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --controller-url | --pi-id | --label | --ca)
        [ $# -gt 1 ] || wrong "$1 needs a value"
        case $1 in
          --controller-url) url=${2%/} ;;
          --pi-id) pi=$2 ;;
          --label) label=$2 ;;
          --ca) ca=$2 ;;
        esac
        shift 2
        ;;
      --with-root-tasks) root_tasks=yes && shift ;;
      --uninstall) uninstall=yes && shift ;;
      -h | --help) usage && exit 0 ;;
      *) wrong "$1 is not understood" ;;
    esac
  done
}

check_arguments() {
  case $url in
    http://?* | https://?*) ;;
    '') wrong '--controller-url is missing' ;;
    *) wrong "--controller-url is $url: the agent is fetched from the controller's http(s):// address" ;;
  esac
  case $pi in
    '') wrong '--pi-id is missing' ;;
    [!A-Za-z0-9]* | *[!A-Za-z0-9_-]*) wrong "--pi-id is $pi: it is letters, digits, - and _, and begins with a letter or digit" ;;
  esac
  case $url$label in *[[:cntrl:]]*) wrong 'an address or a label has no control characters' ;; esac
  [ -z "$ca" ] || [ -r "$ca" ] || wrong "--ca: $ca cannot be read"
}

# The token never stands on a command line, where every user of this machine could read it.
read_token() {
  [ -t 0 ] && return
  IFS= read -r token || true
  case $token in
    '') ;;
    *[!A-Za-z0-9._-]*) wrong 'what came on standard input is not a join token' ;;
  esac
}

# --- the machine ----------------------------------------------------------------------------------

has_systemd() { [ -d /run/systemd/system ] && have systemctl; }
is_packaged() { have dpkg-query && dpkg-query -S /usr/bin/pistat-agent >/dev/null 2>&1; }

# Of the programs here; the kernel may have more, as that of a 32-bit Raspberry Pi OS on a Pi 4 has.
bits() {
  if have getconf; then
    getconf LONG_BIT
  else
    case $(dpkg --print-architecture 2>/dev/null || true) in
      armhf | armel | i386) echo 32 ;;
      *) echo 64 ;;
    esac
  fi
}

# Names of programs that run here, the best first.
architectures() {
  machine=$(uname -m)
  case $machine:$(bits) in
    aarch64:32 | arm64:32) echo 'armv7 armv6' ;; # every such processor has what was built for ARMv7
    x86_64:64 | amd64:64) echo x86_64 ;;
    aarch64:* | arm64:*) echo aarch64 ;;
    armv7* | armv8*)
      # What was built for ARMv7 uses floating point of version 3; what was built for the first Pi
      # runs on every later one.
      if grep -Eqw 'vfpv3|vfpv3d16|vfpv4|asimd' /proc/cpuinfo; then echo 'armv7 armv6'; else echo armv6; fi
      ;;
    armv6*) echo armv6 ;;
    *) fail 69 "there is no agent for a machine of kind $machine: build it there with cargo build --release -p pistat-agent" ;;
  esac
}

fetch() { # address, file
  if have curl; then
    if [ -n "$ca" ]; then curl -fsS --cacert "$ca" -o "$2" "$1"; else curl -fsS -o "$2" "$1"; fi
  elif have wget; then
    if [ -n "$ca" ]; then wget -q --ca-certificate="$ca" -O "$2" "$1"; else wget -q -O "$2" "$1"; fi
  else
    fail 69 'neither curl nor wget is here'
  fi
}

# --- installing -----------------------------------------------------------------------------------

make_user() {
  if id "$user" >/dev/null 2>&1; then return; fi
  if have useradd; then
    useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin "$user" || fail 73 "the user $user cannot be made"
  elif have adduser; then
    adduser -S -D -H -h "$state" -s /sbin/nologin "$user" || fail 73 "the user $user cannot be made"
  else
    fail 73 "the user $user cannot be made: neither useradd nor adduser is here"
  fi
  for group in video systemd-journal; do
    if have usermod && grep -q "^$group:" /etc/group; then usermod -a -G "$group" "$user"; fi
  done
  say "made the user $user"
}

# Puts standard input where it belongs, if it is not there already. Says whether it changed.
# A shell does not stop at mistakes in what it is asked for the success of: each step is looked at,
# and the result too.
put() { # file, mode
  cat >"$temporary/put" || fail 73 "$temporary/put cannot be written"
  if [ -f "$1" ] && cmp -s "$temporary/put" "$1"; then return 1; fi
  if ! { mkdir -p "$(dirname "$1")" && cp "$temporary/put" "$1.new" && cmp -s "$temporary/put" "$1.new" && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; }; then
    rm -f "$1.new"
    fail 73 "$1 cannot be written"
  fi
}

install_program() {
  if is_packaged; then
    agent=/usr/bin/pistat-agent
    say "left $agent and its units to the package pistat-agent"
    if [ "$root_tasks" = yes ] && ! dpkg-query -S '/*/systemd/system/pistat-runner.socket' >/dev/null 2>&1; then
      fail 69 'the agent came as a package, and so does its root runner: apt install ./pistat-runner_*.deb first'
    fi
    return
  fi
  agent=$program
  kinds=$(architectures) || exit 69
  offered='' wanted=''
  for name in $kinds; do
    sum=$(checksums | awk -v name="$name" '$1 == name { print $2 }')
    [ -n "$sum" ] && offered=$name wanted=$sum && break
  done
  [ -n "$offered" ] || no_agent "${kinds%% *}"
  if [ -x "$program" ] && [ "$(sha256sum "$program" | cut -d' ' -f1)" = "$wanted" ]; then
    say "$program is this controller's already"
    return
  fi
  fetch "$url/download/$offered" "$temporary/pistat-agent" || fail 69 "$url/download/$offered cannot be fetched"
  found=$(sha256sum "$temporary/pistat-agent" | cut -d' ' -f1)
  [ "$found" = "$wanted" ] || fail 69 "$url/download/$offered is not what the controller promised (SHA-256 $found, not $wanted): nothing was installed. If it was updated just now, ask the dashboard for the command again"
  candidate=$program.candidate
  put "$candidate" 755 <"$temporary/pistat-agent" || true
  if [ "$(sha256sum "$candidate" | cut -d' ' -f1)" != "$wanted" ]; then
    rm -f "$candidate"
    fail 73 "$program cannot be written whole: it is not what was fetched. Is the disk full?"
  fi
  # The old agent stays unless the new one starts: it may be linked with a newer C library than this
  # machine has.
  if ! answer=$("$candidate" --version 2>&1); then
    rm -f "$candidate"
    fail 69 "the controller's agent for $offered does not start on this machine: $answer. Nothing was installed. \`packaging/build $offered\` makes one that runs on every Linux: put it into the controller's agents folder"
  fi
  mv -f "$candidate" "$program" || fail 73 "$program cannot be written"
  say "installed $program ($offered, checksum verified)"
}

# What to do where the controller has no agent for this machine.
no_agent() { # the name of the best one
  offers=$(checksums | awk 'NF { printf "%s%s", comma, $1; comma = ", " }')
  fail 69 "this controller has no agent for this machine, which needs $1; it has: ${offers:-none}. Nothing was changed. Either
  - give the controller that agent: run \`packaging/build $1\` in a Pi Stat source tree and copy target/packages/pistat-agent-$1
    to the controller, into agents/ of its state folder or the folder of http.downloads; then run this command again;
  - or build the agent on this machine: \`cargo build --release -p pistat-agent\` in a Pi Stat source tree
    (docs/install.md, \"Agents that a controller hands out\")"
}

# A value as TOML writes it.
quoted() { printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"; }

# Ours are three or four keys at the top; whatever else stands in the file stays.
write_config() {
  if [ -n "$ca" ]; then
    put /etc/pistat/ca.pem 644 <"$ca" || true
  fi
  {
    printf 'controller_url = %s\n' "$(quoted "$url")"
    printf 'pi_id = %s\n' "$(quoted "$pi")"
    if [ -n "$label" ]; then printf 'label = %s\n' "$(quoted "$label")"; fi
    if [ -n "$ca" ]; then printf 'ca = "/etc/pistat/ca.pem"\n'; fi
    if [ -f "$config" ]; then
      awk -v label="$label" -v ca="$ca" '
        /^[ \t]*\[/ { in_table = 1 }
        !in_table && (/^[ \t]*(controller_url|pi_id)[ \t]*=/ || (label != "" && /^[ \t]*label[ \t]*=/) || (ca != "" && /^[ \t]*ca[ \t]*=/)) { next }
        { print }' "$config"
    else
      printf '\n# Everything else that can stand here is in docs/configuration.md. Run the install command again to change what stands above.\n'
    fi
  } >"$temporary/agent.toml" || fail 73 "$temporary/agent.toml cannot be written"
  if put "$config" 640 <"$temporary/agent.toml"; then say "wrote $config"; fi
  chgrp "$(id -gn "$user")" "$config"
}

write_units() {
  if is_packaged || ! has_systemd; then return; fi
  groups=$(for group in systemd-journal video; do if grep -q "^$group:" /etc/group; then printf '%s ' "$group"; fi; done)
  changed=no
  agent_unit | sed "s|^ExecStart=/usr/bin/|ExecStart=${program%/*}/|; s|^SupplementaryGroups=.*|SupplementaryGroups=${groups% }|" >"$temporary/unit"
  if put "$units/pistat-agent.service" 644 <"$temporary/unit"; then changed=yes; fi
  if [ "$root_tasks" = yes ]; then
    runner_socket >"$temporary/unit"
    if put "$units/pistat-runner.socket" 644 <"$temporary/unit"; then changed=yes; fi
    runner_unit | sed "s|^ExecStart=/usr/bin/|ExecStart=${program%/*}/|" >"$temporary/unit"
    if put "$units/pistat-runner@.service" 644 <"$temporary/unit"; then changed=yes; fi
  fi
  [ "$changed" = no ] || say "wrote the units in $units"
  systemctl daemon-reload
}

# Root's own note of the controller that it let in: the root runner is told by it, and not by what
# the agent's user may write.
fingerprint_file() { printf %s "${config%/*}/controller.fingerprint"; }

as_agent() { # file of what it says, words…
  said=$1
  shift
  # In a session of its own: processes of that user must not write into root's terminal.
  # shellcheck disable=SC2016 # for the other shell
  $(if have setsid; then echo setsid; fi) su -s /bin/sh "$user" -c 'exec "$0" "$@"' -- "$agent" "$@" >"$said" 2>&1 </dev/null
}

# Lets the agent see to it, as its own user, that the controller lets it in, so that the token need
# not stay here. It ends by itself.
enroll() {
  mkdir -p "$state"
  chown "$user" "$state"
  chmod 700 "$state"
  if [ -z "$token" ]; then
    [ -s "$state/credential.json" ] || fail 78 "this machine is not enrolled yet, and no join token came on standard input: the dashboard's + shows the whole command"
    return
  fi
  if has_systemd; then systemctl stop pistat-agent.service 2>/dev/null || true; fi
  printf '%s\n' "$token" >"$temporary/token"
  chmod 711 "$temporary"
  chown "$user" "$temporary/token"
  chmod 400 "$temporary/token"
  if ! as_agent "$temporary/said" enroll --state "$state" --log-level info --token-file "$temporary/token"; then
    # Without what a terminal would obey.
    tr -cd '\n\t\040-\176\200-\377' <"$temporary/said" | sed 's/^/  /' >&2
    fail 75 "the controller has not let this machine in; the agent is installed, but not started. Run the command again when what it said above is cured"
  fi
  printf '%s\n' "${token#*.}" | put "$(fingerprint_file)" 644 || true
  say "enrolled as $pi at $url"
}

# By the fingerprint that root was given, now or when it let the agent in. Without one nothing is
# pinned: what is in the agent's folder proves nothing.
pin_runner() {
  if [ "$root_tasks" = no ] || ! has_systemd; then return; fi
  if [ -n "$token" ]; then
    set -- --fingerprint "${token#*.}" --replace
  elif [ -s "$runner_state/controller.json" ]; then
    say 'the root runner goes on believing the controller that it was told'
    return
  elif [ -s "$(fingerprint_file)" ]; then
    set -- --fingerprint "$(cat "$(fingerprint_file)")"
  else
    unpinned=yes
    return
  fi
  "$agent" runner pin --agent-state "$state" --pi-id "$pi" "$@" || fail 73 'the root runner could not be told which controller to believe'
  say 'the root runner believes this controller'
}

start() {
  if ! has_systemd; then
    say 'This machine does not run systemd, so nothing starts the agent by itself. By hand, or from what starts services here:'
    say "  su -s /bin/sh $user -c '$agent --state $state'"
    [ "$root_tasks" = no ] || say 'The root runner needs systemd: tasks that need root are refused here.'
    exit 3
  fi
  if [ "$root_tasks" = yes ]; then
    systemctl enable --quiet --now pistat-runner.socket
    say 'the root runner listens'
  fi
  systemctl enable --quiet pistat-agent.service
  systemctl restart pistat-agent.service
  say 'the agent runs, and starts with this machine: systemctl status pistat-agent'
  if [ "$unpinned" = yes ]; then
    fail 78 "the root runner is installed, and refuses every task until root has told it which controller to believe: run this command again with the join token on standard input, or $agent runner pin --fingerprint FINGERPRINT (the part of the join token after the dot)"
  fi
}

# --- removing -------------------------------------------------------------------------------------

remove() {
  if is_packaged; then fail 64 'the agent came as a package: apt purge pistat-agent pistat-runner'; fi
  if has_systemd; then
    systemctl disable --quiet --now pistat-agent.service pistat-runner.socket 2>/dev/null || true
  fi
  for unit in pistat-agent.service pistat-runner.socket pistat-runner@.service; do rm -rf "${units:?}/$unit" "$units/$unit.d"; done
  rm -f "$program" "$config" "${config%/*}/ca.pem" "${config%/*}/join.token" "${config%/*}/runner.toml" "$(fingerprint_file)"
  if has_systemd; then systemctl daemon-reload; fi
  rm -rf "$state" "$runner_state" "$runner_sockets"
  rmdir "${config%/*}" 2>/dev/null || true
  if id "$user" >/dev/null 2>&1; then
    if have userdel; then userdel "$user"; else deluser "$user"; fi || fail 73 "the user $user could not be removed: does a process of it still run?"
  fi
  say 'removed the agent, its configuration and its credential'
  say "On the controller, \`pistat agent remove\` forgets the machine."
}

main() {
  read_arguments "$@"
  if [ "$uninstall" = no ]; then
    check_arguments
    read_token
  fi
  [ "$(id -u)" = 0 ] || fail 77 'this needs root: put sudo before sh'
  if [ "$uninstall" = yes ]; then
    remove
    exit 0
  fi
  temporary=$(mktemp -d) || fail 73 'no temporary folder can be made'
  trap 'rm -rf "$temporary"' EXIT
  trap 'exit 130' HUP INT TERM
  install_program
  make_user
  write_config
  write_units
  enroll
  pin_runner
  start
}

main "$@"
