# shellcheck shell=bash
# Push: deliveries a second to an endpoint on the same cores, against a bare client that posts the same bodies, signed, over as
# many connections; and the time from publish to endpoint at two rates.

DELIVERY_TOPICS=16
# In each topic: more than can be delivered in 4 s, and little enough for the coordinators to have it in memory.
DELIVERY_MESSAGES=7500

deliver_push() {
  "$BENCH" deliver "127.0.0.1:$COMMAND" --prefix backlog --topics $DELIVERY_TOPICS --messages $DELIVERY_MESSAGES \
    --endpoint "127.0.0.1:$DELIVERY_ENDPOINT" --seconds "$SECONDS_NOW"
}
deliver_bare() {
  "$BENCH" post --connections "$CONNECTIONS" --seconds "$SECONDS_NOW"
}

measure_delivery() {
  local engine processes rate seconds
  for engine in embedded kafka; do
    set -- 'delivery.allow_targets=["127.0.0.1/32"]'
    processes="delivery$engine"
    if [ "$engine" = kafka ]; then
      (umask 077 && echo "k1 $(head -c 32 /dev/urandom | base64 | tr -d '\n')" >"$DATA/delivery.keys")
      set -- "$@" "delivery.secrets_file=$DATA/delivery.keys"
      processes="$processes kafka"
    fi
    start_up "delivery$engine" "$engine" "$@"
    [ "$engine" = embedded ] || warm_broker "$COMMAND"
    "$BENCH" backlog "127.0.0.1:$COMMAND" --prefix backlog --topics $DELIVERY_TOPICS --messages $DELIVERY_MESSAGES ||
      fail "no backlog on $engine"
    DELIVERY_ENDPOINT=$(free_port)
    # The first run shows how many connections push opens.
    SECONDS_NOW=$BENCH_SECONDS
    deliver_push >"$DATA/delivery.out" || fail "nothing was delivered on $engine"
    CONNECTIONS=$(sed -n 's/^CONNECTIONS //p' "$DATA/delivery.out")
    echo "$CONNECTIONS" >"$DATA/delivery-$engine.connections"
    measure "delivery-$engine" deliver_push "$processes" deliver_bare ""
    DELIVERY_ENDPOINT=$(free_port)
    for rate in 1000 5000; do
      # The first run creates topics and subscriptions and warms up.
      for seconds in "$BENCH_SECONDS" $(( BENCH_SECONDS * 3 )); do
        "$BENCH" arrive "127.0.0.1:$COMMAND" --prefix arrive --topics $DELIVERY_TOPICS --rate $rate --seconds "$seconds" \
          --endpoint "127.0.0.1:$DELIVERY_ENDPOINT" >"$DATA/delivery-$engine-$rate" || fail "no arrivals on $engine"
      done
      say "    $engine at $rate/s: $(cat "$DATA/delivery-$engine-$rate")"
    done
    end "delivery$engine"
    rm -rf "$DATA/delivery$engine"
  done
}

report_delivery() {
  local engine title rate achieved published failed lost repeated p50 p99 ratio file most
  say "Push of messages of 1 KiB to an endpoint on the same cores, against a bare client. Medians"
  line "" "a second" ratio "CPU us/each" "by CPU" "" ""
  for engine in embedded kafka; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title="embedded, all of up"
    file=$DATA/delivery-$engine
    rate=$(median <"$file.rate") ratio=$(median <"$file.ratio")
    line "bare client, $(cat "$file.connections") connections" "$(median <"$file.bare" | cut -d. -f1)" 1.00 \
      "$(column 1 <"$file.bare-cpu" | median)" 1.00 "" "with the endpoint"
    line "$title" "${rate%.*}" "$(of "$ratio" 1)" "$(cpu_of "$file.cpu")" "$(of "$(median <"$file.cpu-ratio")" 1)" "" \
      "$(judge "$ratio" '>=' 0.6); $(judge "$rate" '>=' 10000)"
    row "$title: CPU us of the endpoint for each" "$(column 1 <"$file.cpu" | median)"
  done
  for engine in embedded kafka; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title=embedded
    for rate in 1000 5000; do
      read -r _ achieved published failed lost repeated p50 p99 <"$DATA/delivery-$engine-$rate"
      row "$title, $rate a second: published a second" "$achieved" "$failed of $(( published + failed )) not acknowledged"
      row "$title, $rate a second: did not arrive; repeated" "$lost; $repeated" "$(judge "$lost" '<=' 0)"
      most=15; [ "$engine" = embedded ] || most=50
      row "$title, $rate a second: publish to endpoint, median ms" "$p50" "$(judge "$p50" '<=' $most)"
      most=60; [ "$engine" = embedded ] || most=200
      row "$title, $rate a second: publish to endpoint, 99th percentile ms" "$p99" "$(judge "$p99" '<=' $most)"
    done
  done
}
