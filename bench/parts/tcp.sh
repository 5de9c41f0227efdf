# shellcheck shell=bash
# Messages over TCP: acknowledged messages of 100 B a second over 16 connections with full windows, and the round trip of one
# message at a time.

measure_tcp() {
  local engine tcp word rate p50 p99 one one99
  for engine in embedded kafka; do
    tcp=$(free_port)
    start_up "tcp$engine" "$engine" command.tcp.enabled=true "command.tcp.listen=127.0.0.1:$tcp" \
      "journal.directory=$DATA/journal-$engine"
    [ "$engine" = embedded ] || "$BENCH" tcp "127.0.0.1:$tcp" --seconds "$BENCH_SECONDS" >/dev/null
    "$BENCH" tcp "127.0.0.1:$tcp" --seconds "$BENCH_SECONDS" >"$DATA/tcp.out" || fail "no messages could be sent to $engine"
    read -r _ _ rate p50 p99 <"$DATA/tcp.out"
    "$BENCH" tcp "127.0.0.1:$tcp" --connections 1 --window 1 --seconds "$BENCH_SECONDS" >"$DATA/tcp.out"
    read -r word _ _ one one99 <"$DATA/tcp.out"
    [ "$word" = TCP ] || fail "the load said nothing"
    echo "$engine $rate $p50 $p99 $one $one99" >>"$DATA/tcp.rows"
    say "    $engine: $rate/s acknowledged"
    end "tcp$engine"
    "$MILLRACE" journal verify --directory "$DATA/journal-$engine" >/dev/null || fail "the journal of $engine is not right"
  done
}

report_tcp() {
  local engine rate p50 p99 one one99
  say "Messages of 100 B over TCP, acknowledged; load, broker and services share the cores"
  while read -r engine rate p50 p99 one one99; do
    row "$engine: a second, 16 connections" "$rate" "window p50 $p50 us, p99 $p99 us; one at a time p50 $one us, p99 $one99 us"
  done <"$DATA/tcp.rows"
}
