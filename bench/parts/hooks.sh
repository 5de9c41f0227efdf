# shellcheck shell=bash
# Very many push subscriptions to 100 endpoints of millrace-bench, a tenth of which refuse connections: CPU, sockets and memory at
# rest; and what an endpoint that gets slow and dies costs the others.

measure_hooks() {
  have_proc "the number of push subscriptions" || return 0
  start_up hooks embedded 'delivery.allow_targets=["127.0.0.1/32"]'
  sleep 2
  "$BENCH" hooks "127.0.0.1:$COMMAND" --prefix hooks --bytes 100 --topics $(( (BENCH_SUBSCRIPTIONS + 99) / 100 )) \
    --seconds $(( BENCH_SECONDS * 3 )) --process "$(running "$DATA/run/hooks.pid")" >"$DATA/hooks.out" || fail "hooks failed"
  say "    $(tr '\n' ' ' <"$DATA/hooks.out")"
  end hooks
  rm -rf "$DATA/hooks"
}

report_hooks() {
  [ -f "$DATA/hooks.out" ] || return 0
  local count created empty full delivered missing cpu sockets kb before slow dead ratio
  read -r count created empty full delivered missing <<<"$(sed -n 's/^HOOKS //p' "$DATA/hooks.out")"
  read -r cpu sockets kb <<<"$(sed -n 's/^REST //p' "$DATA/hooks.out")"
  say "$count push subscriptions to 100 endpoints, every tenth dead; embedded, all of up"
  row "subscriptions created a second" "$created"
  row "resident memory of a subscription, bytes" "$(of $(( (full - empty) * 1024 )) "$count")"
  row "a message to each of them: deliveries a second" "$delivered" "$(judge "$missing" '<=' 0) missing"
  row "at rest, messages to the dead in retry: CPU, % of one core" "$cpu"
  row "at rest: sockets" "$sockets"
  row "at rest: resident memory, MB" "$(( kb / 1024 ))" "before any subscription $(( empty / 1024 ))"
  read -r before slow dead missing <<<"$(sed -n 's/^OTHERS //p' "$DATA/hooks.out")"
  row "publish to endpoint, 99th percentile ms" "$before" "$missing did not arrive"
  for ratio in "$slow slow" "$dead dead"; do
    row "the others' while one of the endpoints is ${ratio#* }" "${ratio% *}" "$(judge "$(of "${ratio% *}" "$before")" '<=' 1.2)"
  done
}
