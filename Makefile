# Two commands are enough to start with: `make demo` and `make test`.

GO      ?= go
BIN     := $(CURDIR)/.bin
# Every module of the workspace; a plain ./... at the root would miss all but one.
MODULES  = $(shell $(GO) list -m -f '{{.Dir}}')
ALL      = $(addsuffix /...,$(MODULES))
# It writes go.work, so it does without.
TOOL     = GO="$(GO)" GOWORK=off $(GO) run -C internal/modules .

DEMO_ADDR ?= localhost:8080
DEMO_PROVIDER ?= localhost:8081
FUZZTIME  ?= 30s
SOAKTIME  ?= 1m
SOAKROUNDS ?= 10
SOAK ?= .
# The tests of the probe that take SOAKTIME into account.
SOAKPROBE = $(if $(filter .,$(SOAK)),FiveTabs|StolenCookie|AllStreams,$(SOAK))

# Tools, pinned. They are built into .bin and are no dependency of any module.
GOTESTSUM     := gotest.tools/gotestsum@v1.13.0
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: help
help: ## list what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## run the shop on http://localhost:8080, with a provider to sign in with (DEMO_ADDR=host:port to change that)
	@echo "Building the shop. The first time this takes a minute or two."
	@$(GO) run ./examples/shop -listen $(DEMO_ADDR) -provider $(DEMO_PROVIDER)

.PHONY: test
test: $(BIN)/gotestsum ## install what the tests need and run all of them, with the race detector
	@GO="$(GO)" GOTESTSUM="$(BIN)/gotestsum" scripts/test $(ALL)

.PHONY: test-short
test-short: ## run the packages whose tests need no other program: neither browser nor server
	@GO="$(GO)" scripts/test-short $(ALL)

# Without the tests' own packages and programs.
COVERED = $(shell $(GO) list ./... | grep -v -e /internal/test -e /internal/mutants | paste -sd,)

.PHONY: cover
cover: ## how much of the root module's code its tests reach, whichever package they are in
	$(GO) test -coverpkg=$(COVERED) -coverprofile=.bin/cover.out ./... >/dev/null
	@$(GO) tool cover -func=.bin/cover.out | awk '/^total:/ {print "statements of the root module that are reached: " $$3}'

.PHONY: soak
soak: ## break real servers for longer: each scenario for SOAKTIME (1m), a browser with five tabs ten times as long, Redis losses in SOAKROUNDS (10) rounds
	cd internal/test/system/outages && FAULT_TIME=$(SOAKTIME) FAULT_ROUNDS=$(SOAKROUNDS) $(GO) test -race -v -count 1 -timeout 0 -run '$(SOAK)' .
	cd internal/test/system/probe && FAULT_TIME=$(SOAKTIME) $(GO) test -race -v -count 1 -timeout 0 -run '$(SOAKPROBE)' .

.PHONY: screenshots
screenshots: ## leave a picture of each page of the shop in the folder screenshots
	SCREENSHOTS="$(CURDIR)/screenshots" $(GO) test -count 1 -run FitToBeSeen ./examples/shop

.PHONY: lint
lint: $(BIN)/golangci-lint ## check formatting, vet, staticcheck and the other linters
	@GO="$(GO)" LINT="$(BIN)/golangci-lint" scripts/lint $(MODULES)

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## format all Go files the way lint wants them
	@set -e; for dir in $(MODULES); do (cd "$$dir" && "$(BIN)/golangci-lint" fmt); done

.PHONY: bench
bench: ## compare with the libraries that users would pick instead (BENCH_ARGS=-quick for a minute's worth)
	@cd bench && $(GO) run . $(BENCH_ARGS)

.PHONY: bench-engines
bench-engines: ## the same on real servers, which it starts: Redis, PostgreSQL (BENCH_ARGS=-full for all of it)
	@cd bench && $(GO) run . engines $(BENCH_ARGS)

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (30s each); fails below FUZZFLOOR (100) inputs a second
	@GO="$(GO)" scripts/fuzz $(FUZZTIME) $(MODULES)

.PHONY: mutants
mutants: ## break what each row of the ASVS table promises, and see its tests fail (MUTANTS="7.3.1 7.4.1" for some rows)
	@$(GO) run ./internal/mutants $(MUTANTS)

.PHONY: vuln
vuln: $(BIN)/govulncheck ## look up known vulnerabilities (needs the network)
	@set -e; for dir in $(MODULES); do echo "$$dir"; (cd "$$dir" && "$(BIN)/govulncheck" ./...); done

.PHONY: tidy
tidy: ## write go.work, and every go.mod and go.sum (VERSION=v1.2.3: the release that comes next)
	@$(TOOL) tidy -version "$(VERSION)"

.PHONY: rehearse
rehearse: ## make a release that nobody sees, and use it: each module alone, a first program, go install
	@$(TOOL) rehearse .bin/rehearsal

.PHONY: release
release: ## the same, and keep the go.sum files that its commit needs
	@$(TOOL) release .bin/rehearsal

.PHONY: clean
clean: ## remove built tools, demo data and screenshots
	rm -rf .bin data screenshots examples/shop/data

# A tool is built again when its pinned version changes, that is with this file.
$(BIN)/gotestsum: Makefile
	@GOBIN="$(BIN)" $(GO) install $(GOTESTSUM) && touch $@
$(BIN)/golangci-lint: Makefile
	@GOBIN="$(BIN)" $(GO) install $(GOLANGCI_LINT) && touch $@
$(BIN)/govulncheck: Makefile
	@GOBIN="$(BIN)" $(GO) install $(GOVULNCHECK) && touch $@
