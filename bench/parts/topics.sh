# shellcheck shell=bash
# Topics and subscriptions: publishes against a bare server, round trips of get and acknowledge, acknowledgements at a rate, and
# publishes at a rate beside readers of every topic, with the check that nothing is lost.

TOPICS_ACKS=5000

publish_one() { wrk_load publish 256 "$TOPICS"; }
publish_batch() { BATCH=100 wrk_load publish 64 "$TOPICS"; }
publish_bare() { wrk_load publish 256 "$BARE"; }
topics_trips() {
  "$BENCH" trips "127.0.0.1:$TOPICS" --prefix pull --bytes 100 --subscribers "$SUBSCRIBERS" --max "$PAGE" \
    --seconds "$SECONDS_NOW"
}
topics_acks() {
  "$BENCH" acks "127.0.0.1:$TOPICS" --prefix pull --bytes 100 --rate $TOPICS_ACKS --seconds "$SECONDS_NOW"
}

measure_topics() {
  local engine processes
  start_bare
  for engine in embedded kafka; do
    start_up "topics$engine" "$engine"
    TOPICS=$COMMAND processes="topics$engine"
    [ "$engine" = embedded ] || { warm_broker "$TOPICS"; processes="$processes kafka"; }
    # Its messages stay in the coordinators' memory: it comes before the parts that publish more than that.
    "$BENCH" backlog "127.0.0.1:$TOPICS" --prefix pull --bytes 100 --messages 1000 || fail "no backlog on $engine"
    # shellcheck disable=SC2086 # names of processes
    topics_read "$engine" $processes
    "$BENCH" backlog "127.0.0.1:$TOPICS" --prefix publish || fail "no topics on $engine"
    measure "topics-publish-$engine" publish_one "$processes" publish_bare bare
    measure "topics-batch-$engine" publish_batch "$processes" publish_bare bare
    topics_follow "$engine"
    end "topics$engine"
    # Messages of 1 KiB for some seconds are gigabytes.
    rm -rf "$DATA/topics$engine"
  done
  end bare
}

# topics_read ENGINE PROCESS...
topics_read() {
  local engine=$1 kind round
  shift
  for kind in "64 1" "1024 1" "64 100"; do
    read -r SUBSCRIBERS PAGE <<<"$kind"
    for round in $(seq "$BENCH_ROUNDS"); do
      load_at topics_trips "$@"
      echo "$RATE $P50 $P99" >>"$DATA/topics-trips-$engine-$SUBSCRIBERS-$PAGE"
      echo "$CPU" >>"$DATA/topics-trips-$engine-$SUBSCRIBERS-$PAGE.cpu"
      say "    round $round of $engine, $SUBSCRIBERS subscribers, $PAGE a get: $RATE/s"
    done
  done
  for round in $(seq "$BENCH_ROUNDS"); do
    load_at topics_acks "$@"
    echo "$RATE $P50 $P99" >>"$DATA/topics-acks-$engine"
  done
}

# topics_follow ENGINE
topics_follow() {
  local word
  # Creates the topics and compiles what a JVM has not compiled yet; not measured.
  topics_follow_for "$BENCH_SECONDS" >/dev/null
  topics_follow_for $(( BENCH_SECONDS * 5 )) >"$DATA/topics-follow-$1"
  read -r word _ <"$DATA/topics-follow-$1"
  [ "$word" = FOLLOW ] || fail "the load printed nothing"
  say "    $1: $(cat "$DATA/topics-follow-$1")"
}
topics_follow_for() {
  "$BENCH" follow "127.0.0.1:$TOPICS" --prefix follow --topics 1024 --rate "$BENCH_MESSAGES" --seconds "$1" ||
    fail "publishing and reading at a rate failed"
}

report_topics() {
  local engine title
  say "Publishing messages of 1 KiB, 201 when durable, against a bare 201; all on the same cores. Medians"
  heading
  for engine in embedded kafka; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title="embedded, all of up"
    compare "topics-publish-$engine" "bare axum (POST 1 KiB, 201)" "$title, one message a request"
    compare "topics-batch-$engine" "bare axum (POST 1 KiB, 201)" "$title, batches of 100, messages"
  done
  for engine in embedded kafka; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title=embedded
    report_topics_of "$engine" "$title"
  done
}

# report_topics_of ENGINE TITLE
report_topics_of() {
  local engine=$1 title=$2 kind subscribers page file aim what rate published failed prompt p50 p99 received lost refused ack50 ack99
  for kind in "64 1" "1024 1" "64 100"; do
    read -r subscribers page <<<"$kind"
    file=$DATA/topics-trips-$engine-$subscribers-$page aim='' what="one a get"
    rate=$(median <"$file")
    [ "$page" = 1 ] || { what="$page a get"; aim="; $(judge "$rate" '>=' 30000)"; }
    row "$title: got and acknowledged a second, $subscribers subscribers, $what" "$rate" \
      "round trip p50 / p99 $(column 2 <"$file" | median) / $(column 3 <"$file" | median) us; CPU $(cpu_of "$file.cpu") us a message$aim"
  done
  file=$DATA/topics-acks-$engine
  p50=$(of "$(column 2 <"$file" | median)" 1000) p99=$(of "$(column 3 <"$file" | median)" 1000)
  row "$title: acknowledgements a second that were achieved" "$(median <"$file")" "$(judge "$(median <"$file")" '>=' $(( TOPICS_ACKS * 99 / 100 )))"
  row "$title: acknowledgement, median ms" "$p50" "$(judge "$p50" '<' "$( [ "$engine" = kafka ] && echo 30 || echo 5)")"
  row "$title: acknowledgement, 99th percentile ms" "$p99" "$(judge "$p99" '<' "$( [ "$engine" = kafka ] && echo 100 || echo 20)")"
  read -r _ rate published failed prompt p50 p99 received lost refused ack50 ack99 <"$DATA/topics-follow-$engine"
  row "$title: publishes a second beside readers" "$rate" \
    "$(judge "$rate" '>=' $(( BENCH_MESSAGES * 99 / 100 ))); p50 / p99 $p50 / $p99 ms; $failed not acknowledged"
  row "$title: share answered within a second" "$prompt" "$(judge "$prompt" '>=' 0.99)"
  row "$title: of $published published, received; lost" "$received; $lost" "$(judge "$lost" '<=' 0)"
  row "$title: acknowledgement beside it, p50 / p99 ms" "$ack50 / $ack99" "$refused requests of readers refused"
}
