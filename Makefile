# `make` starts a local stack, `make test` runs every test, `make help` lists all targets. Works with GNU make 3.81.

# Ports, engine and other options are variables of make or of the environment: make COMMAND_PORT=18081
VARIABLES = ENGINE COMMAND_PORT QUERY_PORT TCP_PORT COMMAND_ADMIN_PORT QUERY_ADMIN_PORT PROCESSOR_ADMIN_PORT \
  MATERIALIZER_ADMIN_PORT DELIVERY_PORT DELIVERY_ADMIN_PORT KAFKA_PORT KAFKA_CONTROLLER_PORT REDIS_PORT POSTGRES_PORT \
  KAFKA_PARTITIONS AUTH NO_INSTALL NO_OPEN EVENTS RATE SEED ONLY CONTROLS
export $(VARIABLES)
SHELL = /bin/bash
.DEFAULT_GOAL = up
.PHONY: up down status logs clean demo build test quick check bench faults help

up: ; @deploy/stack up
down: ; @deploy/stack down
status: ; @deploy/stack status
logs: ; @deploy/stack logs
clean: ; @deploy/stack clean
demo: ; @deploy/stack demo '$(SECONDS)'
build: ; cargo build --release --locked -p millrace
test: ; @deploy/test all
quick: ; @deploy/test quick
check: ; @deploy/check
bench: ; @bench/run
faults: ; @deploy/faults '$(SECONDS)'

help:
	@echo 'make             start a local stack: in containers if a container engine with its compose plugin answers, else embedded'
	@echo '  ENGINE=native    Apache Kafka, Redis, PostgreSQL and the services as processes'
	@echo '  ENGINE=embedded  one process, data on the local disk'
	@echo '  ENGINE=compose   containers'
	@echo '  KAFKA_PARTITIONS=4  of new topics in Kafka (native and compose)'
	@echo '  AUTH=1           every request needs a key, which is printed (embedded and native)'
	@echo '  ports: COMMAND_PORT=8081 QUERY_PORT=8082 TCP_PORT=8084 COMMAND_ADMIN_PORT=9081 QUERY_ADMIN_PORT=9082'
	@echo '    PROCESSOR_ADMIN_PORT=9083 MATERIALIZER_ADMIN_PORT=9084 DELIVERY_PORT=8085 DELIVERY_ADMIN_PORT=9085'
	@echo '    KAFKA_PORT=19092 KAFKA_CONTROLLER_PORT=19093'
	@echo '    REDIS_PORT=16379 POSTGRES_PORT=15432'
	@echo 'make status      show the processes and whether they are ready'
	@echo 'make logs        show the logs and follow them'
	@echo 'make demo        fill the last 24 hours of the running stack with EVENTS=20000, then send RATE=20 per second until Ctrl-C'
	@echo '  SECONDS=60 ends it after a minute; NO_OPEN=1 opens no browser'
	@echo 'make down        stop the stack and keep its data'
	@echo 'make clean       stop the stack and delete its data'
	@echo
	@echo 'make build       build the release binary, target/release/millrace'
	@echo 'make test        run every test against real servers, which it starts (NO_INSTALL=1: install nothing)'
	@echo 'make quick       run the tests that need no server'
	@echo 'make check       check formatting, lints, documentation, licenses and spelling'
	@echo 'make bench       run the measurements: bench/README.md'
	@echo '  BENCH_ONLY="topics nats delivery tcp" selects parts, BENCH_SECONDS=4 is the length of one measurement'
	@echo 'make faults      inject faults and compare every count: docs/faults.md'
	@echo '  SECONDS=300 of random faults; SEED= replays them; ENGINE=kafka, embedded or both; ONLY=5,17,random; CONTROLS=1'
