# shellcheck shell=bash
# POST against a bare axum server: closed loops of wrk.

post_kafka() { wrk_load post "$CONNECTIONS" "$KAFKA_COMMAND"; }
post_embedded() { wrk_load post "$CONNECTIONS" "$EMBEDDED_COMMAND"; }
post_bare() { wrk_load post "$CONNECTIONS" "$BARE"; }

measure_http() {
  start_up http embedded
  EMBEDDED_COMMAND=$COMMAND
  start_command kafka-command
  KAFKA_COMMAND=$COMMAND
  start_bare
  warm_broker "$KAFKA_COMMAND"
  for CONNECTIONS in 256 1024; do
    measure "http-kafka-$CONNECTIONS" post_kafka "kafka-command kafka" post_bare bare
    measure "http-embedded-$CONNECTIONS" post_embedded http post_bare bare
  done
  end bare
  end kafka-command
  end http
}

report_http() {
  local connections
  say "POST, 204 when durable; load, broker and service share the cores. Medians"
  heading
  for connections in 256 1024; do
    compare "http-kafka-$connections" "bare axum, $connections connections" "Apache Kafka, $connections connections" 0.4
  done
  for connections in 256 1024; do
    compare "http-embedded-$connections" "bare axum, $connections connections" "embedded, all of up, $connections connections"
  done
}
