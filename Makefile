# Every target has a line in `make help`. Works with GNU make 3.81 and any POSIX shell.
# Settings come from the command line (make start READERS=5 LOG_LEVEL=debug), from the environment or
# from .env (see .env.example).

GO ?= go
# Not expanded: make would expand a $, and the shell would interpret a value that is pasted into a recipe.
override POST_ID := $(value POST_ID)
override N := $(value N)
ARGS ?=
export GO POST_ID N

# Developing: what to test, and how much of it.
PKG ?= ./...
SCHEDULES ?= 20000
FUZZ ?= 100000x
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Platforms on which the shipped programs and their tests must compile; on Windows only the programs.
PLATFORMS ?= linux/arm64 linux/386
# Packages with raw system calls, unsafe memory or wire formats; their tests also run on an emulated arm64.
ARM64 ?= ./internal/rawio ./internal/fastlane ./internal/httpkit ./internal/cache/protocol ./internal/cache/store ./benchmark/internal/wire
GOTESTSUM ?= gotest.tools/gotestsum@v1.13.0

# The version of the images, whose build context has no .git. Unset without git.
start restart build demo: export VERSION = $(shell git describe --tags --always --dirty 2>/dev/null)
start restart build demo: export REVISION = $(shell git rev-parse HEAD 2>/dev/null)

release: export RELEASE_VERSION = $(value VERSION)

.DEFAULT_GOAL := help
.PHONY: help start stop restart health stats demo load scale failover logs logs-writer logs-reader logs-redis \
	test-write test-read build benchmark clean fmt lint vet-platforms rules test test-arm64 cover sim fuzz bench test-redis test-kubernetes \
	test-kubernetes-cluster test-compose release ci

##@ Using the stack

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "%s%s:\n", gap, substr($$0, 5); gap = "\n" } \
		/^[a-z0-9-]+:.*## / { printf "  %-23s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

start: ## Start the stack, in Docker if that works, else as local processes: make start [RUNTIME=local] [REDIS=sentinel]
	@local/stack.sh start

stop: ## Stop the stack; the data in Redis stays
	@local/stack.sh stop

restart: ## Stop, then start
	@local/stack.sh stop
	@local/stack.sh start

health: ## Show a line per process or container: ready, or why not; fails unless all are
	@local/stack.sh health

stats: ## Show a line per reader: reads per second, latency, propagation, entries, memory, lag
	@local/stack.sh stats

demo: ## Break the stack in every way under load and print the outcomes; starts and stops it if it does not run
	@local/stack.sh demo

load: ## Put reads and writes on the stack until Ctrl-C: make load [LOAD_READS=400] [LOAD_WRITES=10]
	@local/stack.sh load

scale: ## Change the number of readers behind the gateway: make scale N=5
	@local/stack.sh scale "$$N"

failover: ## Promote a Redis replica without losing a write (REDIS=sentinel or cluster)
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
	@local/stack.sh test-read "$$POST_ID"

build: ## Build the images in Docker, else the programs in bin/
	@local/stack.sh build

benchmark: ## Measure the running stack and write a report to benchmark/results: make benchmark [ARGS=--full]
	@benchmark/run_benchmark.sh $(ARGS)

clean: ## Stop the stack; delete its data, its logs or images, and the binaries
	@local/stack.sh clean
	@rm -rf bin dist

##@ Developing

fmt: ## Format the Go code
	gofmt -w .

lint: vet-platforms ## Check formatting, go.mod, vet (also for other platforms), staticcheck, shellcheck and, where installed, hadolint
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted (make fmt):" $$unformatted >&2; exit 1; }
	$(GO) mod verify
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) vet -tags compose ./test/compose/...
	GOOS=darwin $(GO) vet ./...
	cd test/kubernetes && $(GO) mod verify && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(STATICCHECK) -tags compose ./test/compose/...
	git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x
	@if command -v hadolint >/dev/null; then echo hadolint Dockerfile; hadolint Dockerfile; \
	else echo "hadolint is not installed, so the Dockerfile is not linted (Debian has no package of it)"; fi

# Without the benchmark, whose modules take minutes to compile for each platform.
vet-platforms: ## Vet the shipped programs for arm64 and 386, and build them for Windows
	@set -e; for platform in $(PLATFORMS); do \
		export GOOS=$${platform%/*} GOARCH=$${platform#*/} CGO_ENABLED=0; \
		echo "$$platform: $(GO) vet of the shipped programs and the packages that they use"; \
		$(GO) vet $$($(GO) list -deps ./writer ./reader ./auditor ./failover ./dashboard ./local | grep '^heavy-read-api/'); \
	done
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) build -o /dev/null ./writer ./reader ./auditor ./failover ./dashboard ./local

rules: ## Check Prometheus's configuration and what fires each alert (promtool)
	promtool check config prometheus/prometheus.yml
	promtool test rules prometheus/tests/*.yml

# Many tests wait for timeouts and failovers, so twice as many packages as cores run at a time. Those that take
# longest start first. A program with the race detector sleeps for a second before it exits, by default.
test: ## Run all tests except those of Docker, with the race detector if there is a C compiler: make test [PKG=./internal/reader]
	@race=; [ "$$($(GO) env CGO_ENABLED)" != 1 ] || race=-race; \
	first=; [ '$(PKG)' != ./... ] || first='./internal/cache/replica ./internal/test/e2e ./internal/writer ./benchmark/internal/suite ./internal/local ./internal/cache/store'; \
	export GORACE="$${GORACE-atexit_sleep_ms=20}"; \
	set -- $$race -shuffle=on -p $$((2 * $$(getconf _NPROCESSORS_ONLN))) $$first $(PKG); \
	echo "Compiling the tests; the first time takes minutes. A line per package follows as it ends: go test $$*"; \
	$(GO) run $(GOTESTSUM) --format pkgname-and-test-fails --format-hide-empty-pkg $(GOTESTSUM_ARGS) -- "$$@"

# Compiled by Go for arm64 and run by qemu-user, which translates system calls but has no kernel of its own.
test-arm64: ## Run the tests of wire formats and raw system calls on an emulated arm64; needs qemu-aarch64-static
	@command -v qemu-aarch64-static >/dev/null || { \
		echo "error: there is no qemu-aarch64-static: sudo apt-get install qemu-user-static" >&2; exit 1; }
	@echo "skipped: TestLimitOfOpenFiles of internal/fastlane, because qemu-user cannot start the arm64 test binary from a shell"
	GOARCH=arm64 CGO_ENABLED=0 $(GO) test -count=1 -skip '^TestLimitOfOpenFiles$$' -exec qemu-aarch64-static $(ARM64)

cover: ## Run the tests and write coverage.html: make cover [PKG=./internal/reader]
	$(GO) test -coverpkg=./internal/... -coverprofile=coverage.out $(PKG)
	$(GO) tool cover -html=coverage.out -o coverage.html
	@$(GO) tool cover -func=coverage.out | tail -n 1

sim: ## Run the protocol under random schedules: make sim [SCHEDULES=100000]
	$(GO) test -count=1 -run 'TestSimulation$$' ./internal/cache/replica -sim.count=$(SCHEDULES)

# Bounded by a count: at the end of a time limit, go test sometimes reports its own deadline as a failure of the target.
fuzz: ## Run every fuzz target: make fuzz [FUZZ=1000000x]
	@set -e; targets=$$(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z]+' internal); \
	echo "$$targets" | while IFS=: read -r file target; do \
		target=$${target#func }; package=./$$(dirname "$$file"); \
		echo "$(GO) test -fuzz ^$$target\$$ -fuzztime $(FUZZ) $$package"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ) -fuzzminimizetime 100x "$$package" </dev/null; \
	done

bench: ## Run the Go benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

test-redis: ## Run the protocol's tests on Redis 8 and Valkey from Debian's newer suites; needs apt-get
	@$(GO) run ./test/redis

# Programs of Kubernetes are compiled: minutes the first time.
test-kubernetes: ## Check deploy/kubernetes, also by a real API server, which is compiled first; needs etcd
	cd test/kubernetes && $(GO) test -count=1 -timeout 30m ./manifests ./apply

test-kubernetes-cluster: ## Play a rollout, scaling and a drain through with real controllers on nodes that do not exist; needs etcd
	cd test/kubernetes && $(GO) test -count=1 -timeout 60m -v ./cluster

test-compose: ## Start the stack in Docker, break it and check its promises; needs root where no engine runs
	@$(GO) test -tags compose -count=1 -timeout 0 -v ./test/compose $(ARGS)

release: ## Build a release into dist/, with checksums, SBOMs and licences: make release VERSION=v1.2.3
	@$(GO) run ./internal/release -version "$$RELEASE_VERSION"

ci: ## Run everything that CI runs; needs the tools that it names
	@.ci/run
