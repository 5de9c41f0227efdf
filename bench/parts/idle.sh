# shellcheck shell=bash
# A fresh `millrace up` on the embedded engine, without load.

measure_idle() {
  have_proc "the idle process" || return 0
  local before
  start_up idle embedded
  sleep 2
  before=$(cpu_ms idle)
  sleep 10
  IDLE_CPU=$(awk -v ms=$(( $(cpu_ms idle) - before )) 'BEGIN { printf "%.2f\n", ms / 100 }')
  IDLE_MB=$(( $(rss_kb idle) / 1024 ))
  end idle
}

report_idle() {
  [ -n "${IDLE_CPU:-}" ] || return 0
  say "Embedded, before any event"
  row "CPU, % of one core" "$IDLE_CPU" "$(judge "$IDLE_CPU" '<' 1)"
  row "resident memory, MB" "$IDLE_MB" "$(judge "$IDLE_MB" '<' 100)"
}
