# shellcheck shell=bash
# Many users of one hour: their memory, and the time to restore them after kill -9.

# restore_start ENGINE NAME: starts the processor on Kafka; on the embedded engine, which is one process, `millrace up`.
restore_start() {
  # All users exact, however few partitions share them.
  local command query exact=processor.max_exact_users=100000000
  RESTORE_ADMIN=$(free_port) command=$(free_port) query=$(free_port)
  RESTORE_BEGAN=$(now_ms)
  if [ "$1" = kafka ]; then
    millrace "$2" processor engine=kafka "kafka.brokers=$BROKERS" "prefix=bench.$2." telemetry.level=info instance=bench \
      "$exact" "processor.admin=127.0.0.1:$RESTORE_ADMIN"
  else
    millrace "$2" up engine=embedded "embedded.directory=$DATA/$2" "prefix=bench.$2." telemetry.level=info instance=bench \
      "$exact" "command.listen=127.0.0.1:$command" "query.listen=127.0.0.1:$query" "command.admin=127.0.0.1:$RESTORE_ADMIN"
  fi
  up "$2" "$RESTORE_ADMIN" 600
}

# restore_log ENGINE NAME: prints millrace-bench's arguments for the log.
restore_log() { if [ "$1" = kafka ]; then echo "--brokers $BROKERS --prefix bench.$2."; else echo "--directory $DATA/$2 --prefix bench.$2."; fi; }

# restore_round ENGINE USERS
restore_round() {
  local engine=$1 users=$2 name=restore-$1-$2 address empty counted_kb log
  address=$(restore_log "$engine" "$name")
  restore_start "$engine" "empty-$name"
  sleep 2
  empty=$(rss_kb "empty-$name")
  end "empty-$name"
  # shellcheck disable=SC2086 # arguments
  "$BENCH" preload $address --events "$users" --distinct --hours 1
  restore_start "$engine" "$name"
  wait_for 300 counted "$RESTORE_ADMIN" "$users" || fail "$users events were not counted in time"
  sleep 3
  counted_kb=$(rss_kb "$name")
  crash "$name"
  log=$DATA/log/$name.log
  : >"$log"
  restore_start "$engine" "$name"
  RESTORE_READY=$(( $(now_ms) - RESTORE_BEGAN ))
  RESTORE_CPU=$(cpu_ms "$name")
  # Logged once per restored group of partitions; the time from the first to the last is at most the sum.
  RESTORE_TOOK=$(sed -n '/state restored/s/.*took_ms=\([0-9]*\).*/\1/p' "$log" | awk '{ n += $1 } END { if (NR) print n; else print "-" }')
  sleep 3
  echo "$engine $users $RESTORE_READY $RESTORE_TOOK $RESTORE_CPU $empty $counted_kb $(rss_kb "$name")" >>"$DATA/restore.rows"
  end "$name"
  # shellcheck disable=SC2086
  "$BENCH" totals $address --events "$users" --users "$users"
  [ "$engine" = kafka ] || rm -rf "${DATA:?}/$name"
  say "    $users users on $engine: ready after $RESTORE_READY ms"
}

measure_restore() {
  have_proc "restore" || return 0
  local users
  need_kafka
  for users in $BENCH_USERS; do
    restore_round kafka "$users"
    restore_round embedded "$users"
  done
}

report_restore() {
  [ -f "$DATA/restore.rows" ] || return 0
  local engine users ready took cpu empty counted restored bytes
  say "Users of one hour, one event each, counts checked after kill -9 and restore"
  while read -r engine users ready took cpu empty counted restored; do
    bytes=$(of $(( (restored - empty) * 1024 )) "$users")
    row "$engine, $users users: resident bytes per user, restored" "$bytes" "$(judge "$bytes" '<=' 19)"
    row "$engine, $users users: the same, when just counted" "$(of $(( (counted - empty) * 1024 )) "$users")"
    if [ "$took" != - ]; then
      row "$engine, $users users: restore, s" "$(seconds "$took")" "$( [ "$users" -lt 10000000 ] || judge "$(seconds "$took")" '<' 10)"
    fi
    row "$engine, $users users: from start to ready, s" "$(seconds "$ready")"
    row "$engine, $users users: CPU of that, s" "$(seconds "$cpu")"
  done <"$DATA/restore.rows"
  # The memory that reading needs in any case is in both figures, not in their difference.
  for engine in kafka embedded; do
    awk -v e="$engine" '$1 == e { users[++n] = $2; kb[n] = $8 } END { if (n > 1) print users[1], users[n], (kb[n] - kb[1]) * 1024 / (users[n] - users[1]) }' \
      "$DATA/restore.rows" | while read -r users ready bytes; do
      row "$engine, from $users to $ready users: bytes per further user" "$(of "$bytes" 1)" "$(judge "$bytes" '<=' 19)"
    done
  done
}
