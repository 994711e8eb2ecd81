# Needs Go (the version in go.mod) and make. `make help` lists what there is.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# The home directory, where nobody says which it is: Go keeps its builds there.
ifeq ($(HOME),)
export HOME := $(shell eval "cd ~$$(id -un)" 2>/dev/null && pwd)
endif

GO ?= go
# Where `make start` keeps pid files and logs.
RUN_DIR ?= .run
# How long each fuzz target runs: in `make check` and in `make fuzz`.
CHECK_FUZZTIME ?= 3s
FUZZTIME ?= 1m
# Which seeds the simulator runs: SEED=7 RUNS=1.
SEED ?= $(shell date +%s)
RUNS ?= 5000
CHECK_RUNS ?= 1000
# What the benchmarks are: BENCH=Heartbeat BENCHCOUNT=10.
BENCH ?= .
BENCHCOUNT ?= 1
PKG ?= ./...

ifndef VERSION
VERSION := $(shell GIT_OPTIONAL_LOCKS=0 git describe --tags --always --dirty 2>/dev/null || echo dev)
endif

# Without cgo no C compiler is needed, and the binaries are static. Without the
# paths of this directory they are the same wherever they are built. All targets
# build alike, so that nothing is built twice.
CGO_ENABLED ?= 0
GOFLAGS := $(filter-out -trimpath -buildvcs=%,$(shell $(GO) env GOFLAGS)) -trimpath -buildvcs=false
export CGO_ENABLED GO GOFLAGS RUN_DIR

GO_BUILD = $(GO) build -ldflags '-s -w -X main.version=$(VERSION)'
GO_FILES = git ls-files --cached --others --exclude-standard '*.go'
LINT = bin/tools/golangci-lint

##@ Use

.PHONY: start
start: build ## Start a master and an agent: [MODE=master [PEER_MASTERS=a,b] | MODE=worker EXPLORER_ADDRESSES=a,b]
	@scripts/service.sh start $(MODE)

.PHONY: stop
stop: ## Stop what `make start` started
	@scripts/service.sh stop

.PHONY: status
status: ## Show what runs, and where
	@scripts/service.sh status

.PHONY: logs
logs: ## Show the last lines of the logs: [LINES=50] [FOLLOW=1]
	@scripts/service.sh logs

.PHONY: demo
demo: build bin/computenode bin/demo ## Run 3 masters and 20 nodes with VMs on this machine, until Ctrl-C: [DEMO_PORT=9100]
	@exec bin/demo -bin bin -dir "$$RUN_DIR/demo" $(if $(DEMO_PORT),-port $(DEMO_PORT))

.PHONY: demo-stop
demo-stop: bin/demo ## Stop the demo from another terminal, or what a killed one left behind
	@bin/demo -dir "$$RUN_DIR/demo" -stop

##@ Build

.PHONY: build
build: bin/explorer bin/workeragent ## Build bin/explorer and bin/workeragent

# Go knows better than make what is out of date.
.PHONY: bin/explorer bin/workeragent bin/computenode bin/demo
bin/explorer bin/workeragent:
	@$(GO_BUILD) -o $@ ./cmd/$(@F)
bin/computenode bin/demo:
	@$(GO_BUILD) -o $@ ./examples/$(@F)

.PHONY: generate
generate: ## Write generated files anew
	$(GO) generate ./...

.PHONY: clean
clean: stop demo-stop ## Stop what runs, remove binaries and logs; data stays
	rm -rf bin "$$RUN_DIR"

##@ Test

.PHONY: test
test: ## Run all tests that need neither root nor extra packages
	$(GO) test $(PKG)

.PHONY: check
check: check-format check-mod check-generated vet lint race check-fuzz check-sim ## Check everything: format, vet, lint, races, fuzz targets, simulated faults, generated files

.PHONY: check-format
check-format:
	@bad=$$(gofmt -l $$($(GO_FILES))); \
	if [ -n "$$bad" ]; then echo "not formatted, run gofmt -w on:" >&2; echo "$$bad" >&2; exit 1; fi

.PHONY: check-mod
check-mod:
	$(GO) mod tidy -diff
	cd tools && $(GO) mod tidy -diff

.PHONY: check-generated
check-generated:
	@scripts/check-generated.sh

.PHONY: vet
vet:
	$(GO) vet -tags e2e,soak ./...

# With a cache of its own: a shared one remembers findings by the paths of other clones.
.PHONY: lint
lint: export GOLANGCI_LINT_CACHE = $(CURDIR)/bin/tools/cache
lint: $(LINT)
	$(LINT) run

.PHONY: race
race:
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $(PKG)

.PHONY: check-fuzz
check-fuzz:
	@scripts/fuzz.sh $(CHECK_FUZZTIME)

.PHONY: fuzz
fuzz: ## Run every fuzz target for a while: [FUZZTIME=1m] [FUZZ=name]
	@scripts/fuzz.sh $(FUZZTIME) $(FUZZ)

SIM = $(GO) test -count=1 -timeout 24h -v ./crdtstore/internal/sim

# The faults that are planted show that the simulator would find one.
.PHONY: check-sim
check-sim:
	$(SIM) -run '^TestSeeds$$' -args -sim.seed=1 -sim.runs=$(CHECK_RUNS)
	$(SIM) -run '^TestPlantedFaultsAreFound$$' -args -sim.mutants

.PHONY: sim
sim: ## Run masters through simulated faults, one run a seed: [SEED=n] [RUNS=5000] [TRACE=1]
	$(SIM) -run '^TestSeeds$$' -args -sim.seed=$(SEED) -sim.runs=$(RUNS) $(if $(TRACE),-sim.trace)

.PHONY: e2e
e2e: ## Test real processes, in network namespaces and in a browser: [RUN=name]
	$(GO) test -tags e2e -count=1 -timeout 30m -v $(if $(RUN),-run '$(RUN)') ./cmd/e2e/...
	$(GO) test -tags e2e -count=1 -timeout 5m -v -run '$(or $(RUN),TestFleet)' ./workeragent

.PHONY: soak
soak: ## Run a master for simulated days and see that disk and memory do not grow: [DAYS=30] [NODES=10000]
	$(GO) test -tags soak -count=1 -timeout 24h -v ./cmd/soak -args $(if $(DAYS),-days $(DAYS)) $(if $(NODES),-nodes $(NODES))

.PHONY: bench
bench: ## Run the benchmarks: [BENCH=regexp] [BENCHCOUNT=1] [PKG=./...]
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(BENCHCOUNT) $(PKG)

# The linter has a module of its own, which pins its version.
$(LINT): tools/go.mod tools/go.sum
	cd tools && $(GO) build -ldflags '-s -w' -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

##@ Help

.PHONY: help
help: ## Show this
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nSettings of the programs: bin/explorer --help, bin/workeragent --help\n'
