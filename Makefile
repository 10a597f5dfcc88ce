# Every target has a line in `make help`. Works with GNU make 3.81 and any POSIX shell.
# Settings go on the command line (make start READERS=5 LOG_LEVEL=debug), into the environment or
# into .env (see .env.example).

GO ?= go
# As they were written: make would expand a $, and a shell what is pasted into a recipe.
override POST_ID := $(value POST_ID)
override N := $(value N)
ARGS ?=
export GO POST_ID N

# The images' version, which their build cannot see for itself. Unset without git.
start restart build: export VERSION = $(shell git describe --tags --always --dirty 2>/dev/null)
start restart build: export REVISION = $(shell git rev-parse HEAD 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help start stop restart health stats scale failover logs logs-writer logs-reader logs-redis \
	test-write test-read build test test-redis test-compose bench benchmark clean bin/local bin/writer bin/reader

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

start: ## Start the stack (in Docker where it works, else local; RUNTIME=docker or local forces it), wait until it is ready; REDIS=sentinel: a Redis that fails over
	@local/stack.sh start

stop: ## Stop the stack; the data of Redis stays
	@local/stack.sh stop

restart: ## Stop, then start
	@local/stack.sh stop
	@local/stack.sh start

health: ## A line per process or container: ready, or why not; fails when one is not
	@local/stack.sh health

stats: ## A line per reader: reads per second, latency, propagation, entries, memory, lag
	@local/stack.sh stats

scale: ## N readers behind the gateway: make scale N=5
	@test -n "$$N" || { echo "usage: make scale N=5"; exit 2; }
	@local/stack.sh scale "$$N"

failover: ## Make a Redis replica the primary, without losing a write (REDIS=sentinel or cluster)
	@local/stack.sh failover

logs: ## Follow all logs
	@local/stack.sh logs

logs-writer: ## Follow the writer's log
	@local/stack.sh logs writer

logs-reader: ## Follow the readers' logs
	@local/stack.sh logs reader

logs-redis: ## Follow the logs of Redis and its Sentinels
	@local/stack.sh logs redis

test-write: ## Write a post: make test-write [POST_ID=hello]
	@local/stack.sh test-write "$$POST_ID"

test-read: ## Read a post through the gateway: make test-read POST_ID=hello
	@test -n "$$POST_ID" || { echo "usage: make test-read POST_ID=hello"; exit 2; }
	@local/stack.sh test-read "$$POST_ID"

build: ## Build what the stack runs: the images in Docker, else the programs in bin/
	@local/stack.sh build

# go build knows best what changed, so it is always asked.
bin/writer:
	@$(GO) build -o $@ ./writer
bin/reader:
	@$(GO) build -o $@ ./reader
bin/local:
	@$(GO) build -o $@ ./local

test: ## Run all tests but those of Docker, with the race detector where there is a C compiler
	@race=; if [ "$$(GOFLAGS= $(GO) env CGO_ENABLED)" = 1 ]; then race=-race; fi; \
	echo "$(GO) test $$race -shuffle=on ./..."; $(GO) test $$race -shuffle=on ./...

test-redis: ## Run the tests of the protocol on Redis 8 and Valkey, from Debian's newer suites; needs apt-get
	@test/redis/run.sh

test-compose: ## Run the stack in Docker, break it and check what it promises; needs root where no engine runs
	@test/compose/run.sh

bench: ## Run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

benchmark: ## Measure the stack that runs, write benchmark/benchmark-report.md: make benchmark [ARGS=--full]
	@benchmark/run_benchmark.sh $(ARGS)

clean: ## Stop the stack, delete its data, its logs or images, and the binaries
	@local/stack.sh clean
	@rm -rf bin
