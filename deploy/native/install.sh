# shellcheck shell=bash
# Finds missing programs and installs them if that needs no password. Sourced; needs ../lib.sh, fetch-kafka.sh and
# servers.sh.

# have WORD: true if it is installed. Words: build (compiler and libraries), java, maven, redis, postgres, compose (for
# deploy/compose-check), browser (for the dashboard's test), netcat (for examples), receivers (what the examples of endpoints
# are written in).
have() {
  case $1 in
    build) command -v cc >/dev/null 2>&1 && command -v make >/dev/null 2>&1 && command -v pkg-config >/dev/null 2>&1 \
      && pkg-config --exists openssl ;;
    java) find_java ;;
    maven) kafka_jars_there || have_maven ;;
    redis) have_redis ;;
    postgres) have_postgres ;;
    compose) find_python ;;
    browser) find_browser ;;
    netcat) command -v nc >/dev/null 2>&1 ;;
    receivers) command -v go >/dev/null 2>&1 && command -v node >/dev/null 2>&1 && command -v openssl >/dev/null 2>&1 ;;
    *) fail "have: unknown word $1" ;;
  esac
}

# find_python: sets PYTHON to an interpreter with PyYAML.
find_python() {
  for PYTHON in python3 /usr/bin/python3; do
    "$PYTHON" -c 'import yaml' >/dev/null 2>&1 && return 0
  done
  return 1
}

# find_browser: true if the dashboard's test finds a browser.
find_browser() {
  local name
  [ -n "${MILLRACE_TEST_BROWSER:-}" ] && return 0
  for name in chromium chromium-browser google-chrome chrome; do
    command -v "$name" >/dev/null 2>&1 && return 0
  done
  return 1
}

debian_package() {
  case $1 in
    build) echo "build-essential pkg-config libssl-dev zlib1g-dev" ;;
    java) echo default-jre-headless ;;
    maven) echo maven ;;
    redis) echo redis-server ;;
    postgres) echo postgresql ;;
    compose) echo "python3-yaml haproxy" ;;
    browser) echo chromium ;;
    netcat) echo netcat-openbsd ;;
    receivers) echo "golang-go nodejs openssl" ;;
  esac
}

brew_package() {
  case $1 in
    build) echo "pkg-config openssl@3" ;;
    java) echo openjdk ;;
    postgres) echo postgresql@17 ;;
    compose) echo "pyyaml haproxy" ;;
    browser) echo "--cask chromium" ;;
    receivers) echo "go node openssl@3" ;;
    *) echo "$1" ;;
  esac
}

# install_missing WORD...: installs the missing ones unless NO_INSTALL is set. Returns 0 if all are installed afterwards;
# else prints what to install.
install_missing() {
  local word missing packages
  missing=
  for word in "$@"; do
    have "$word" || missing="$missing $word"
  done
  [ -z "$missing" ] && return 0

  packages=
  if command -v apt-get >/dev/null 2>&1; then
    for word in $missing; do packages="$packages $(debian_package "$word")"; done
    if is_root && [ -z "${NO_INSTALL:-}" ]; then
      say "installing with apt-get (NO_INSTALL=1 prevents it):$packages"
      # shellcheck disable=SC2086 # one word per package
      { DEBIAN_FRONTEND=noninteractive apt-get update -q \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages; } \
        </dev/null >"$ROOT/.millrace/install.log" 2>&1 || tail -n 15 "$ROOT/.millrace/install.log" >&2
    fi
  elif command -v brew >/dev/null 2>&1; then
    for word in $missing; do packages="$packages $(brew_package "$word")"; done
    if [ -z "${NO_INSTALL:-}" ]; then
      say "installing with brew (NO_INSTALL=1 prevents it):$packages"
      # shellcheck disable=SC2086 # one word per package
      brew install -q $packages </dev/null || true
    fi
  fi

  local still
  still=
  for word in $missing; do
    have "$word" || still="$still $word"
  done
  [ -z "$still" ] && return 0
  warn "missing:$still"
  if [ -n "$packages" ]; then
    warn "install these packages:$packages"
  else
    warn "install with this system's package manager: a C compiler, pkg-config and OpenSSL's headers (build);" \
      "Java 17 or newer; Apache Maven; Redis; PostgreSQL's server"
  fi
  return 1
}
