# `make` starts a local stack, `make test` proves it. `make help` lists the rest. Works with GNU make 3.81.

# Ports, the engine and other switches are variables of make or of the environment: make COMMAND_PORT=18081
VARIABLES = ENGINE COMMAND_PORT QUERY_PORT COMMAND_ADMIN_PORT QUERY_ADMIN_PORT PROCESSOR_ADMIN_PORT \
  MATERIALIZER_ADMIN_PORT KAFKA_PORT KAFKA_CONTROLLER_PORT REDIS_PORT POSTGRES_PORT NO_INSTALL NO_OPEN EVENTS RATE \
  SEED ONLY CONTROLS
export $(VARIABLES)
SHELL = /bin/bash
.DEFAULT_GOAL = up
.PHONY: up down status logs clean demo build test quick check bench faults help

up: ; @deploy/stack up
down: ; @deploy/stack down
status: ; @deploy/stack status
logs: ; @deploy/stack logs
clean: ; @deploy/stack clean
demo: ; @deploy/stack demo
build: ; cargo build --release --locked -p millrace
test: ; @deploy/test all
quick: ; @deploy/test quick
check: ; @deploy/check
bench: ; @bench/run
faults: ; @deploy/faults '$(SECONDS)'

help:
	@echo 'make             start a local stack: in containers if an engine with its compose plugin answers, else embedded'
	@echo '  ENGINE=native    Apache Kafka, Redis and PostgreSQL as processes; ENGINE=embedded: one process, local disk;'
	@echo '                   ENGINE=compose: containers'
	@echo '  COMMAND_PORT=8081 QUERY_PORT=8082 COMMAND_ADMIN_PORT=9081 QUERY_ADMIN_PORT=9082 PROCESSOR_ADMIN_PORT=9083'
	@echo '  MATERIALIZER_ADMIN_PORT=9084 KAFKA_PORT=19092 KAFKA_CONTROLLER_PORT=19093 REDIS_PORT=16379 POSTGRES_PORT=15432'
	@echo 'make status      what runs            make logs    what it says'
	@echo 'make down        stop, keep the data  make clean   stop, delete the data'
	@echo 'make demo        a paced load on the running stack (EVENTS=20000 RATE=500)'
	@echo 'make build       the binary, target/release/millrace'
	@echo 'make test        every test, against real servers that it starts itself (NO_INSTALL=1: install nothing)'
	@echo 'make quick       the tests that need no server'
	@echo 'make check       formatting, lints, documentation, licences, spelling'
	@echo 'make bench       the measurements'
	@echo 'make faults      everything broken on purpose, every number compared: docs/faults.md'
	@echo '  SEED= replays; ENGINE=kafka, embedded or both; SECONDS=300; ONLY=5,17,random; CONTROLS=1'
