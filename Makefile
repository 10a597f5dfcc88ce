# Every target has a line in `make help`. Works with GNU make 3.81 and any POSIX shell.
# Settings go on the command line (make start READERS=5 LOG_LEVEL=debug) or into the environment.

GO ?= go
POST_ID ?=
N ?=
ARGS ?=
# Where the stack answers; the same in Docker and without.
WRITER_PORT ?= 8080
GATEWAY_PORT ?= 9080
WRITER_URL ?= http://localhost:$(WRITER_PORT)
GATEWAY_URL ?= http://localhost:$(GATEWAY_PORT)

.DEFAULT_GOAL := help
.PHONY: help start stop restart health stats scale logs logs-writer logs-reader logs-redis \
	test-write test-read build test bench benchmark clean program bin/local bin/writer bin/reader

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

start: bin/local ## Start the stack (Docker Compose where there is one, else local; RUNTIME=docker or local forces it), wait until it is ready
	@local/stack.sh start

stop: | program ## Stop the stack; the data of Redis stays
	@local/stack.sh stop

restart: bin/local ## Stop, then start
	@local/stack.sh stop
	@local/stack.sh start

health: | program ## A line per process: ready, or why not
	@local/stack.sh health

stats: | program ## A line per reader: reads per second, latency, propagation, entries, memory, lag
	@local/stack.sh stats

scale: | program ## N readers behind the gateway: make scale N=5
	@test -n "$(N)" || { echo "usage: make scale N=5"; exit 2; }
	@local/stack.sh scale "$(N)"

logs: ## Follow all logs
	@local/stack.sh logs

logs-writer: ## Follow the writer's log
	@local/stack.sh logs writer

logs-reader: ## Follow the readers' logs
	@local/stack.sh logs reader

logs-redis: ## Follow the log of Redis
	@local/stack.sh logs redis

test-write: ## Write a post: make test-write [POST_ID=hello]
	@id="$(POST_ID)"; id="$${id:-hello}"; \
	curl -sS -i --fail-with-body -X POST "$(WRITER_URL)/create" -H 'Content-Type: application/json' \
		$${WRITER_TOKEN:+-H "Authorization: Bearer $$WRITER_TOKEN"} \
		-d "{\"id\":\"$$id\",\"title\":\"A post\",\"content\":\"Written by make test-write at $$(date)\",\"author\":\"make\"}" && \
	echo "Read it: make test-read POST_ID=$$id"

test-read: ## Read a post through the gateway: make test-read POST_ID=hello
	@test -n "$(POST_ID)" || { echo "usage: make test-read POST_ID=hello"; exit 2; }
	@curl -sS -i --fail-with-body -G "$(GATEWAY_URL)/post" --data-urlencode "id=$(POST_ID)"

build: bin/writer bin/reader bin/local ## Build bin/writer, bin/reader and bin/local

# go build knows best what changed, so it is always asked; but a stack that runs can be looked at
# and stopped while the tree does not compile.
program:
	@test -x bin/local || $(MAKE) bin/local
bin/writer:
	@$(GO) build -o $@ ./writer
bin/reader:
	@$(GO) build -o $@ ./reader
bin/local:
	@$(GO) build -o $@ ./local

test: ## Run all tests, with the race detector where there is a C compiler
	@race=; if [ "$$(GOFLAGS= $(GO) env CGO_ENABLED)" = 1 ]; then race=-race; fi; \
	echo "$(GO) test $$race -shuffle=on ./..."; $(GO) test $$race -shuffle=on ./...

bench: ## Run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

benchmark: ## Measure the stack that runs, write benchmark/benchmark-report.md: make benchmark [ARGS=--full]
	@benchmark/run_benchmark.sh $(ARGS)

clean: | program ## Stop the stack, delete its data, its logs and the binaries
	@local/stack.sh clean
	@rm -rf bin
