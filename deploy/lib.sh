# shellcheck shell=bash
# Functions that the scripts share: output, ports, HTTP, Java, and processes identified by pid and start time.
# Sourced by scripts that have set ROOT. Runs on bash 3.2 with BSD or GNU tools.

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
fail() { warn "error: $*"; exit 1; }

is_root() { [ "$(id -u)" = 0 ]; }

# --- ports -----------------------------------------------------------------------------------------------------------

# port_answers PORT: true if a process listens on this port of loopback.
port_answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# wait_for SECONDS COMMAND...: repeats the command until it succeeds; false at the deadline.
wait_for() {
  local deadline
  deadline=$(( $(date +%s) + $1 ))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# need_port NAME PORT: fails with the name of the variable if the port is taken.
need_port() {
  case $2 in
    '' | *[!0-9]*) fail "$1 must be a port number, not \"$2\"" ;;
  esac
  if port_answers "$2"; then
    fail "port $2 on 127.0.0.1 is taken by another process; choose another: make $1=PORT (now $1=$2)"
  fi
}

# free_port: prints a free port outside the ephemeral ranges of common systems.
free_port() {
  local port tries
  tries=0
  while [ "$tries" -lt 100 ]; do
    port=$(( 20000 + (RANDOM % 10000) ))
    if ! port_answers "$port"; then
      echo "$port"
      return 0
    fi
    tries=$(( tries + 1 ))
  done
  fail "no free port found"
}

# http_get URL: prints the response's body; false unless the status is 2xx. Uses curl, else bash's sockets (no chunked
# decoding).
http_get() {
  if command -v curl >/dev/null 2>&1; then
    curl -fsS -m 5 "$1" 2>/dev/null
    return
  fi
  local rest host
  rest=${1#http://}
  host=${rest%%/*}
  (
    exec 3<>"/dev/tcp/${host%%:*}/${host##*:}"
    printf 'GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n' "${rest#*/}" "$host" >&3
    read -r -t 5 _ status _ <&3
    sed '1,/^.$/d' <&3
    case $status in 2*) exit 0 ;; *) exit 1 ;; esac
  ) 2>/dev/null
}

http_ok() { http_get "$1" >/dev/null 2>&1; }

# --- Java ------------------------------------------------------------------------------------------------------------

# java_works JAVA: true for Java 17 or newer. It runs it, because macOS ships a `java` that only names a download page.
java_works() {
  local version
  version=$("$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ -n "$version" ] && [ "$version" -ge 17 ]
}

# Sets JAVA, or returns 1.
find_java() {
  [ -n "${JAVA:-}" ] && return 0
  local candidate
  for candidate in "${JAVA_HOME:-/nonexistent}/bin/java" java /opt/homebrew/opt/openjdk/bin/java \
      /usr/local/opt/openjdk/bin/java /usr/lib/jvm/*/bin/java /Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java; do
    if command -v "$candidate" >/dev/null 2>&1 && java_works "$candidate"; then
      JAVA=$candidate
      return 0
    fi
  done
  return 1
}

# --- processes -------------------------------------------------------------------------------------------------------
# A pid file holds the pid and the start time of the process, so that another process with a reused pid never gets a
# signal.

process_began() {
  if [ -r "/proc/$1/stat" ]; then
    sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
  else
    ps -o lstart= -p "$1" 2>/dev/null | tr -s ' ' '_'
  fi
}

# record_pid FILE PID
record_pid() {
  printf '%s %s\n' "$2" "$(process_began "$2")" >"$1"
}

# running FILE: prints the pid if the process in the file runs; false otherwise.
running() {
  local pid began
  [ -r "$1" ] || return 1
  read -r pid began <"$1" || return 1
  [ -n "$began" ] && [ "$(process_began "$pid")" = "$began" ] || return 1
  # A zombie has ended; its parent has not waited for it yet.
  if [ -r "/proc/$pid/stat" ]; then
    case $(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null) in Z*) return 1 ;; esac
  fi
  echo "$pid"
}

gone() { ! running "$1" >/dev/null; }

# detach PIDFILE LOGFILE COMMAND...: starts a process that outlives this script and its terminal.
detach() {
  local pidfile logfile pid
  pidfile=$1
  logfile=$2
  shift 2
  # Job control gives the child a process group of its own: an interrupt at the terminal does not reach it.
  pid=$(set -m; nohup "$@" </dev/null >>"$logfile" 2>&1 & echo $!)
  record_pid "$pidfile" "$pid"
}

# stop FILE NAME SECONDS SIGNAL: sends the signal, and SIGKILL after that time.
stop() {
  local pid
  if pid=$(running "$1"); then
    kill "-$4" "$pid" 2>/dev/null || true
    if ! wait_for "$3" gone "$1"; then
      warn "$2 did not stop within $3 s: sending SIGKILL"
      kill -9 "$pid" 2>/dev/null || true
      wait_for 5 gone "$1" || warn "$2 (process $pid) still runs"
    fi
  fi
  rm -f "$1"
}
