# shellcheck shell=bash
# The ports of the local stack. Those of Kafka, Redis and PostgreSQL are not the default ones, so that the stack runs
# beside other servers. Sourced.

PORT_NAMES="COMMAND_PORT QUERY_PORT TCP_PORT COMMAND_ADMIN_PORT QUERY_ADMIN_PORT PROCESSOR_ADMIN_PORT \
MATERIALIZER_ADMIN_PORT DELIVERY_PORT DELIVERY_ADMIN_PORT KAFKA_PORT KAFKA_CONTROLLER_PORT REDIS_PORT POSTGRES_PORT"

: "${COMMAND_PORT:=8081}"
: "${QUERY_PORT:=8082}"
: "${TCP_PORT:=8084}"
: "${COMMAND_ADMIN_PORT:=9081}"
: "${QUERY_ADMIN_PORT:=9082}"
: "${PROCESSOR_ADMIN_PORT:=9083}"
: "${MATERIALIZER_ADMIN_PORT:=9084}"
: "${DELIVERY_PORT:=8085}"
: "${DELIVERY_ADMIN_PORT:=9085}"
: "${KAFKA_PORT:=19092}"
: "${KAFKA_CONTROLLER_PORT:=19093}"
: "${REDIS_PORT:=16379}"
: "${POSTGRES_PORT:=15432}"

# kafka_partitions: prints the number of partitions that the topics of .millrace have, or will get. A single broker with a few
# cores needs no more than 4, and each partition costs requests of its own. Earlier versions created 12.
kafka_partitions() {
  if [ -f "$DATA/partitions" ]; then cat "$DATA/partitions"
  elif [ -d "$DATA/kafka/data" ]; then echo 12
  else echo "${KAFKA_PARTITIONS:-4}"; fi
}

# millrace_settings ENGINE: prints the settings of millrace for these ports, one NAME=VALUE per line.
millrace_settings() {
  echo "MILLRACE_COMMAND__LISTEN=127.0.0.1:$COMMAND_PORT"
  echo "MILLRACE_COMMAND__TCP__LISTEN=127.0.0.1:$TCP_PORT"
  echo "MILLRACE_COMMAND__ADMIN=127.0.0.1:$COMMAND_ADMIN_PORT"
  echo "MILLRACE_QUERY__LISTEN=127.0.0.1:$QUERY_PORT"
  echo "MILLRACE_QUERY__ADMIN=127.0.0.1:$QUERY_ADMIN_PORT"
  echo "MILLRACE_PROCESSOR__ADMIN=127.0.0.1:$PROCESSOR_ADMIN_PORT"
  echo "MILLRACE_MATERIALIZER__ADMIN=127.0.0.1:$MATERIALIZER_ADMIN_PORT"
  echo "MILLRACE_DELIVERY__LISTEN=127.0.0.1:$DELIVERY_PORT"
  echo "MILLRACE_DELIVERY__ADMIN=127.0.0.1:$DELIVERY_ADMIN_PORT"
  # A local stack pushes to local endpoints.
  echo 'MILLRACE_DELIVERY__ALLOW_TARGETS=["127.0.0.0/8"]'
  if [ "${AUTH:-}" = 1 ]; then
    echo "MILLRACE_AUTH__MODE=keys"
    echo "MILLRACE_AUTH__KEYS_FILE=$DATA/keys.toml"
    echo "MILLRACE_AUTH__PROCESS_KEY_FILE=$DATA/key"
    # For the tools.
    echo "MILLRACE_KEY_FILE=$DATA/key"
  fi
  if [ "$1" = embedded ]; then
    echo "MILLRACE_ENGINE=embedded"
    echo "MILLRACE_EMBEDDED__DIRECTORY=$DATA/data"
    echo "MILLRACE_JOURNAL__DIRECTORY=$DATA/journal"
  else
    echo "MILLRACE_ENGINE=kafka"
    # A journal belongs to one log: that of the embedded engine would be refused.
    echo "MILLRACE_JOURNAL__DIRECTORY=$DATA/journal-native"
    echo "MILLRACE_DELIVERY__SECRETS_FILE=$DATA/push.keys"
    # The other processes that the dashboard shows.
    echo "MILLRACE_QUERY__WATCH=[\"127.0.0.1:$COMMAND_ADMIN_PORT\", \"127.0.0.1:$PROCESSOR_ADMIN_PORT\", \"127.0.0.1:$MATERIALIZER_ADMIN_PORT\", \"127.0.0.1:$DELIVERY_ADMIN_PORT\"]"
    echo "MILLRACE_KAFKA__BROKERS=127.0.0.1:$KAFKA_PORT"
    echo "MILLRACE_KAFKA__PARTITIONS=$(kafka_partitions)"
    echo "MILLRACE_KAFKA__REPLICATION_FACTOR=1"
    echo "MILLRACE_KAFKA__MIN_INSYNC_REPLICAS=1"
    echo "MILLRACE_REDIS__URL=redis://127.0.0.1:$REDIS_PORT"
    echo "MILLRACE_POSTGRES__URL=postgres://millrace@127.0.0.1:$POSTGRES_PORT/millrace"
  fi
}
