# shellcheck shell=bash
# Overload: acknowledged against offered events per second, from a quarter of the peak to five times it, in an open loop.
# Server and broker have one half of the cores, load the other, where the system supports it.

GOODPUT_STEPS="0.25 0.5 0.75 1 1.5 2 3 5"

measure_goodput() {
  local engine processes
  for engine in kafka embedded; do
    start_up "goodput$engine" "$engine"
    processes="goodput$engine"
    [ "$engine" = embedded ] || { warm_broker "$COMMAND"; processes="$processes kafka redis postgres"; }
    # shellcheck disable=SC2086 # names of processes
    pin $processes
    goodput_steps "$engine"
    # shellcheck disable=SC2086
    unpin $processes
    end "goodput$engine"
  done
}

# goodput_steps ENGINE
goodput_steps() {
  local engine=$1 connections rate idle_rounds peak step word due sent good refused other silent p50 p99
  # A JVM that has lost half of its cores needs a while to reach its peak: until two rounds bring no increase.
  peak=0 idle_rounds=0
  for connections in 256 1024 256 1024 256 1024 256 1024 256 1024; do
    apart wrk -t1 "-c$connections" -d"${BENCH_SECONDS}s" --timeout 10s -s bench/post.lua "http://127.0.0.1:$COMMAND" >"$DATA/wrk.out"
    read -r _ rate _ <<<"$(grep '^BENCH ' "$DATA/wrk.out")"
    if [ "$rate" -gt $(( peak * 105 / 100 )) ]; then peak=$rate idle_rounds=0; else idle_rounds=$(( idle_rounds + 1 )); fi
    [ "$idle_rounds" -lt 2 ] || break
  done
  say "    peak of $engine in a closed loop: $peak/s"
  for step in $GOODPUT_STEPS; do
    apart "$BENCH" offer "127.0.0.1:$COMMAND" --rate "$(awk -v p="$peak" -v s="$step" 'BEGIN { printf "%d\n", p * s }')" \
      --seconds $(( BENCH_SECONDS * 2 )) --connections 16000 >"$DATA/offer.out" || fail "nothing could be offered to $engine"
    read -r word due sent good refused other silent p50 p99 <"$DATA/offer.out"
    [ "$word" = OFFER ] || fail "the load printed nothing"
    echo "$engine $step $peak $due $sent $good $refused $other $silent $p50 $p99" >>"$DATA/goodput.rows"
    say "    $step times the peak of $engine: $good/s acknowledged"
    # What was left waiting is not the next step's.
    wait_for 60 settled "$QUERY" || fail "the counts of $engine did not settle"
  done
}

report_goodput() {
  local engine step peak due sent good refused other silent p50 p99 best last
  if can_pin; then say "Goodput against offered load: an open loop on one half of the cores, the server on the other"
  else say "Goodput against offered load: an open loop on the same cores as the server"; fi
  printf '  %-13s %5s %9s %9s %9s %9s %7s %9s %17s\n' "a second" "x" due sent 2xx 429/503 other "no answer" "p50 / p99 ms"
  while read -r engine step peak due sent good refused other silent p50 p99; do
    printf '  %-13s %5s %9s %9s %9s %9s %7s %9s %17s\n' "$engine" "$step" "$due" "$sent" "$good" "$refused" "$other" "$silent" "$p50 / $p99"
  done <"$DATA/goodput.rows"
  for engine in kafka embedded; do
    read -r best last sent <<<"$(awk -v e="$engine" '$1 == e { if ($6 > best) best = $6; last = $6; sent = $5 / $3 } END { print best, last, sent }' \
      "$DATA/goodput.rows")"
    row "$engine: goodput at 5 times the peak, of the best" "$(of "$last" "$best")" \
      "$(judge "$(of "$last" "$best")" '>=' 0.8); $(of "$sent" 1) times the peak were really sent"
  done
  awk '{ sub("kafka", "Apache_Kafka", $1); print $1, $4, $6, $3 }' "$DATA/goodput.rows" >"$DATA/goodput.table"
  "$BENCH" plot "$DATA/goodput.table" docs/img/goodput.svg
  say "  drawn: docs/img/goodput.svg"
}
