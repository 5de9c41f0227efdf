# shellcheck shell=bash
# Very many topics with a subscription each: how fast they are created, what they cost, publishing to one drawn at random and
# getting the message, and how soon a get is answered after the process was ended or killed.

# Trips at the same time.
MANY_TRIPS=16

many_tool() {
  local tool=$1
  shift
  "$BENCH" "$tool" "127.0.0.1:$COMMAND" --prefix many --topics "$BENCH_TOPICS" "$@" || fail "$tool failed"
}

# many_restart ENGINE NAME: starts the process again at its ports; prints the ms until a get is answered.
many_restart() {
  local began
  began=$(now_ms)
  launch_up "$2" "$1" >&2
  many_tool many-first >&2
  echo $(( $(now_ms) - began ))
}

many_round() {
  local engine=$1 name=many$1 empty full created trips ended killed
  start_up "$name" "$engine"
  [ "$engine" = embedded ] || warm_broker "$COMMAND"
  sleep 2
  empty=$(rss_kb "$name")
  created=$(many_tool many | sed -n 's/^CREATED //p')
  # Heads are written every 10 s; the state's memory is what is left then.
  sleep 12
  full=$(rss_kb "$name")
  trips=$(many_tool many-trips --bytes 100 --connections $MANY_TRIPS --seconds $(( BENCH_SECONDS * 3 )) | sed -n 's/^BENCH //p')
  end "$name"
  ended=$(many_restart "$engine" "$name")
  up "$name" "$ADMIN" 120
  crash "$name"
  killed=$(many_restart "$engine" "$name")
  up "$name" "$ADMIN" 120
  sleep 2
  echo "$engine $empty $full $(rss_kb "$name") $ended $killed $created $trips" >>"$DATA/many.rows"
  end "$name"
  [ "$engine" = kafka ] || rm -rf "${DATA:?}/$name"
  say "    $engine: $created; $trips; ended $ended ms, killed $killed ms"
}

measure_many() {
  have_proc "the number of topics" || return 0
  local engine
  for engine in embedded kafka; do many_round "$engine"; done
}

report_many() {
  [ -f "$DATA/many.rows" ] || return 0
  local engine empty full again ended killed rate count p50 p99 trips answers failed trip50 trip99
  say "$BENCH_TOPICS topics with a subscription each, one process of all"
  while read -r engine empty full again ended killed rate count p50 p99 trips answers failed trip50 trip99; do
    row "$engine: topics with their subscription created a second" "$rate" "$(judge "$rate" '>=' 2000); request p50 / p99 $p50 / $p99 us"
    row "$engine: resident memory before, MB" "$(( empty / 1024 ))"
    row "$engine: resident memory with $count topics, MB" "$(( full / 1024 ))" "$(of $(( (full - empty) * 1024 )) "$count") bytes each"
    row "$engine: the same after a restart, MB" "$(( again / 1024 ))" "$(of $(( (again - empty) * 1024 )) "$count") bytes each"
    row "$engine: publish and get of a random topic, 99th percentile ms" "$(of "$trip99" 1000)" \
      "$(judge "$(of "$trip99" 1000)" '<' 200); median $(of "$trip50" 1000) ms, $trips/s, $failed of $(( answers + failed )) refused"
    row "$engine: first answer after an orderly restart, s" "$(seconds "$ended")" "$(judge "$(seconds "$ended")" '<' 5)"
    if [ "$engine" = kafka ]; then
      row "$engine: first answer after kill -9, s" "$(seconds "$killed")" "the session timeout of the killed process included"
    else
      row "$engine: first answer after kill -9, s" "$(seconds "$killed")" "$(judge "$(seconds "$killed")" '<' 5)"
    fi
  done <"$DATA/many.rows"
}
