# shellcheck shell=bash
# Messages over TCP: acknowledged messages of 100 B a second over 16 connections with full windows, and the round trip of one
# message at a time, beside that of a POST; and the same to rsyslog over RELP, into a synced file.

# tcp_rows NAME PORT OPTION...: measures a listener; a row of the report.
tcp_rows() {
  local name=$1 port=$2 word rate p50 p99 one one99
  shift 2
  "$BENCH" tcp "127.0.0.1:$port" --seconds "$BENCH_SECONDS" "$@" >"$DATA/tcp.out" || fail "no messages could be sent to $name"
  read -r word _ rate p50 p99 <"$DATA/tcp.out"
  "$BENCH" tcp "127.0.0.1:$port" --connections 1 --window 1 --seconds "$BENCH_SECONDS" "$@" >"$DATA/tcp.out" ||
    fail "no message could be sent to $name"
  read -r word _ _ one one99 <"$DATA/tcp.out"
  [ "$word" = TCP ] || fail "the load printed nothing"
  echo "$name $rate $p50 $p99 $one $one99" >>"$DATA/tcp.rows"
  say "    $name: $rate/s acknowledged; one at a time $one us"
}

measure_tcp() {
  local engine tcp
  : >"$DATA/tcp.rows"
  for engine in embedded kafka; do
    tcp=$(free_port)
    start_up "tcp$engine" "$engine" command.tcp.enabled=true "command.tcp.listen=127.0.0.1:$tcp" \
      "journal.directory=$DATA/journal-$engine"
    [ "$engine" = embedded ] || "$BENCH" tcp "127.0.0.1:$tcp" --seconds "$BENCH_SECONDS" >/dev/null
    tcp_rows "$engine" "$tcp"
    # One POST at a time, of the same process.
    wrk -t1 -c1 -d"${BENCH_SECONDS}s" --timeout 10s -s bench/post.lua "http://127.0.0.1:$COMMAND" >"$DATA/tcp.post"
    sed -n 's/^BENCH /'"$engine"' /p' "$DATA/tcp.post" >>"$DATA/tcp.posts"
    end "tcp$engine"
    "$MILLRACE" journal verify --directory "$DATA/journal-$engine" >/dev/null || fail "the journal of $engine is not right"
  done
  tcp_rsyslog
}

# rsyslog with two rulesets: one without a queue, whose action has synced the file before the acknowledgement; one with a
# queue in memory, rsyslog's default, where the acknowledgement means that the message is in the queue.
tcp_rsyslog() {
  local kind port
  for kind in Direct LinkedList; do
    port=$(free_port)
    mkdir -p "$DATA/rsyslog-$kind"
    cat >"$DATA/rsyslog-$kind.conf" <<END
global(workDirectory="$DATA/rsyslog-$kind")
module(load="imrelp" ruleset="relp")
template(name="line" type="string" string="%msg%\n")
ruleset(name="relp" queue.type="$kind") {
  action(type="omfile" file="$DATA/rsyslog-$kind/messages" template="line" sync="on" asyncWriting="off" flushOnTXEnd="on")
}
input(type="imrelp" port="$port" address="127.0.0.1" maxDataSize="10k")
END
    if ! rsyslogd -N1 -f "$DATA/rsyslog-$kind.conf" >"$DATA/log/rsyslog-$kind.log" 2>&1; then
      warn "NOT MEASURED: rsyslog with its module imrelp was not found; Debian: rsyslog rsyslog-relp"
      return 0
    fi
    start "rsyslog-$kind" rsyslogd -n -f "$DATA/rsyslog-$kind.conf" -i NONE
    wait_for 10 port_answers "$port" || fail "rsyslog did not start; see $DATA/log/rsyslog-$kind.log"
    # RELP's own clients have a window of 128 messages.
    tcp_rows "rsyslog-$kind" "$port" --protocol relp --window 128
    end "rsyslog-$kind"
  done
}

report_tcp() {
  local name title aim rate p50 p99 one one99 post ratio
  say "Messages of 100 B over TCP, acknowledged; load, broker and services share the cores"
  while read -r name rate p50 p99 one one99; do
    aim=''
    case $name in
      embedded) title="embedded" aim=$(judge "$rate" '>=' 300000) ;;
      kafka) title="Apache Kafka" aim=$(judge "$rate" '>=' 150000) ;;
      rsyslog-Direct) title="rsyslog, RELP, synced before the acknowledgement" ;;
      *) title="rsyslog, RELP, acknowledged from its queue" ;;
    esac
    row "$title: a second, 16 connections" "$rate" "$aim"
    row "$title: a window, p50 / p99 us" "$p50 / $p99"
    row "$title: one at a time, p50 / p99 us" "$one / $one99"
  done <"$DATA/tcp.rows"
  while read -r name _ _ _ post _; do
    one=$(awk -v n="$name" '$1 == n { print $5 }' "$DATA/tcp.rows")
    ratio=$(of "$one" "$post")
    [ "$name" = embedded ] || name="Apache Kafka"
    row "$name: one at a time, of a POST's median of $post us" "$ratio" "$(judge "$ratio" '<=' 1.5)"
  done <"$DATA/tcp.posts"
}
