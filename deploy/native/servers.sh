# shellcheck shell=bash
# Kafka, Redis and PostgreSQL as processes, all data below one folder. Sourced; needs ../lib.sh and fetch-kafka.sh. Each
# start_ function takes the folder and a port; if its server does not start, it prints why and returns 1.

# find_program NAME: prints its path; also looks in the folders where Debian and Homebrew install PostgreSQL's programs.
find_program() {
  local name dir found
  name=$1
  found=
  if command -v "$name" >/dev/null 2>&1; then
    command -v "$name"
    return 0
  fi
  # Newest version last in the listing, so the last hit wins.
  for dir in /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ -x "$dir/$name" ] && found=$dir/$name
  done
  [ -n "$found" ] && echo "$found"
}

have_kafka() { find_java && { kafka_jars_there || have_maven; }; }
have_redis() { find_program redis-server >/dev/null; }
have_postgres() { find_program initdb >/dev/null && find_program pg_ctl >/dev/null; }

# --- Kafka -----------------------------------------------------------------------------------------------------------

# start_kafka FOLDER PORT CONTROLLER_PORT
start_kafka() {
  local dir home log props
  dir=$1/kafka
  log=$1/log/kafka.log
  props=$dir/server.properties
  find_java || { warn "Kafka needs Java 17 or newer; none that runs was found"; return 1; }
  fetch_kafka || return 1
  home=$(kafka_home)
  mkdir -p "$dir" "$1/log" "$1/run"
  {
    cat "$ROOT/deploy/native/kafka.properties"
    echo "listeners=CLIENT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3"
    echo "advertised.listeners=CLIENT://127.0.0.1:$2"
    echo "controller.quorum.voters=1@127.0.0.1:$3"
    echo "log.dirs=$dir/data"
  } >"$props"
  if [ ! -f "$dir/data/meta.properties" ]; then
    # A fixed id: base64 of "millrace-local-1".
    "$JAVA" -Xmx128m "-Dlog4j2.configurationFile=$ROOT/deploy/native/log4j2-tools.xml" -cp "$home/libs/*" \
      kafka.tools.StorageTool format -t bWlsbHJhY2UtbG9jYWwtMQ -c "$props" >>"$log" 2>&1 \
      || { warn "Kafka's storage could not be formatted; see $log"; return 1; }
  fi
  : >"$log"
  detach "$1/run/kafka.pid" "$log" "$JAVA" -Xms256m -Xmx512m -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
    -Djava.awt.headless=true "-Dlog4j2.configurationFile=$ROOT/deploy/native/log4j2.xml" \
    -cp "$home/libs/*" kafka.Kafka "$props"
  wait_for "${START_SECONDS:-60}" kafka_started_or_dead "$1" && kafka_started "$1" && return 0
  warn "Kafka did not start; the end of $log:"
  tail -n 15 "$log" >&2
  return 1
}

kafka_started() { grep -q 'Kafka Server started' "$1/log/kafka.log" && running "$1/run/kafka.pid" >/dev/null; }
kafka_started_or_dead() { kafka_started "$1" || gone "$1/run/kafka.pid"; }

# --- Redis -----------------------------------------------------------------------------------------------------------

# start_redis FOLDER PORT
start_redis() {
  local program log
  program=$(find_program redis-server) || { warn "redis-server was not found"; return 1; }
  log=$1/log/redis.log
  mkdir -p "$1/redis" "$1/log" "$1/run"
  : >"$log"
  detach "$1/run/redis.pid" "$log" "$program" "$ROOT/deploy/native/redis.conf" --port "$2" --dir "$1/redis"
  wait_for "${START_SECONDS:-60}" redis_ready_or_dead "$1" "$2" && redis_ready "$2" && return 0
  warn "Redis did not start; the end of $log:"
  tail -n 15 "$log" >&2
  return 1
}

# Redis replies PONG once the append-only file is loaded. Without redis-cli, which is a package of its own.
redis_ready() {
  local answer
  answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'PING\r\n' >&3 && read -r -t 2 line <&3 && echo "$line") 2>/dev/null )
  case $answer in +PONG*) return 0 ;; *) return 1 ;; esac
}
redis_ready_or_dead() { redis_ready "$2" || gone "$1/run/redis.pid"; }

# --- PostgreSQL ------------------------------------------------------------------------------------------------------

# postgres_user: prints the user to run PostgreSQL as if this script runs as root; PostgreSQL refuses to run as root.
postgres_user() {
  local user
  for user in postgres nobody; do
    id -u "$user" >/dev/null 2>&1 && { echo "$user"; return 0; }
  done
  return 1
}

# as_postgres COMMAND...: runs it as that user if this script runs as root, in a directory that every user may enter.
as_postgres() {
  if ! is_root; then
    "$@"
    return
  fi
  local user
  user=$(postgres_user) || { warn "no user postgres or nobody to run PostgreSQL as"; return 1; }
  if command -v setpriv >/dev/null 2>&1; then
    (cd / && exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@")
  elif command -v runuser >/dev/null 2>&1; then
    (cd / && exec runuser -u "$user" -- "$@")
  else
    # shellcheck disable=SC2016 # "$0" and "$@" are for the inner shell
    (cd / && exec su -s /bin/sh "$user" -c 'exec "$0" "$@"' "$@")
  fi
}

# postgres_dir FOLDER: prints the data directory: below the folder, unless that user cannot reach it.
postgres_dir() {
  local dir
  dir=$1/postgres
  if [ -f "$1/postgres.path" ]; then
    cat "$1/postgres.path"
    return
  fi
  mkdir -p "$dir"
  if is_root; then
    if ! as_postgres test -x "$dir" 2>/dev/null; then
      rmdir "$dir"
      dir=$(mktemp -d /var/tmp/millrace-postgres.XXXXXX)
      chmod 755 "$dir"
      echo "$dir" >"$1/postgres.path"
    fi
    chown "$(postgres_user)" "$dir"
  fi
  echo "$dir"
}

# start_postgres FOLDER PORT: a server with user and database "millrace"; only loopback, no password.
start_postgres() {
  local initdb dir log
  initdb=$(find_program initdb) || { warn "PostgreSQL's server programs (initdb, pg_ctl, postgres) were not found"; return 1; }
  log=$1/log/postgres.log
  mkdir -p "$1/log" "$1/run"
  dir=$(postgres_dir "$1") || return 1
  : >"$log"
  if [ ! -f "$dir/data/made" ]; then
    make_postgres "${initdb%/*}" "$dir" >>"$log" 2>&1 \
      || { warn "PostgreSQL's data could not be set up; the end of $log:"; tail -n 15 "$log" >&2; return 1; }
  fi
  # After a kill -9 its children end a moment later, and until then PostgreSQL refuses to start.
  if ! wait_for 15 launch_postgres "${initdb%/*}" "$dir" "$2" "$log"; then
    warn "PostgreSQL did not start; the end of $log:"
    tail -n 15 "$log" >&2
    return 1
  fi
  record_pid "$1/run/postgres.pid" "$(head -n 1 "$dir/data/postmaster.pid")"
}

# make_postgres BIN DIR: writes the file "made" last, so that incomplete data is created again.
make_postgres() {
  rm -rf "$2/data"
  as_postgres "$1/initdb" -D "$2/data" -U millrace -A trust -E UTF8 --no-locale || return 1
  # Single-user mode, because psql is a package of its own.
  echo 'CREATE DATABASE millrace' | as_postgres "$1/postgres" --single -D "$2/data" postgres || return 1
  as_postgres touch "$2/data/made"
}

# launch_postgres BIN DIR PORT LOG
launch_postgres() {
  as_postgres "$1/pg_ctl" start -w -t 60 -D "$2/data" -o "-p $3 -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=${POSTGRES_CONNECTIONS:-100}" </dev/null >>"$4" 2>&1
}

# --- all servers -----------------------------------------------------------------------------------------------------

# stop_servers FOLDER. PostgreSQL's fast shutdown is SIGINT; after SIGTERM it waits until its clients disconnect.
stop_servers() {
  stop "$1/run/postgres.pid" PostgreSQL 20 INT
  stop "$1/run/redis.pid" Redis 20 TERM
  stop "$1/run/kafka.pid" Kafka 30 TERM
}

# remove_servers FOLDER: deletes their data, also PostgreSQL's outside the folder.
remove_servers() {
  local elsewhere
  if [ -f "$1/postgres.path" ]; then
    elsewhere=$(cat "$1/postgres.path")
    case $elsewhere in /var/tmp/millrace-postgres.*) rm -rf "$elsewhere" ;; esac
  fi
  rm -rf "$1/kafka" "$1/redis" "$1/postgres" "$1/postgres.path"
}
