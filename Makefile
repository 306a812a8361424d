# Everything here also runs without make: each target is one or two commands.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Where the linters are built; see tools/go.mod for their versions.
BIN := $(CURDIR)/bin

.PHONY: help build run test race lint arch docs bench soak cross clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/perdure, static, without cgo
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/perdure ./cmd/perdure

run: build ## Build it and run an example stack in the foreground (Ctrl-C stops it)
	PERDURE=$(BIN)/perdure PATH="$(BIN):$$PATH" examples/run.sh

test: ## Find or install what the tests need, then run them all, e2e included
	scripts/setup.sh
	scripts/sdk.sh
	$(GO) test ./...

race: ## Run all tests but e2e with the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -shuffle=on $$($(GO) list ./... | grep -v '/e2e$$')

lint: $(BIN)/golangci-lint ## Check the format, vet, and run the linters of .golangci.yml
	scripts/gofmt.sh
	$(GO) vet ./...
	$(BIN)/golangci-lint run ./...

$(BIN)/golangci-lint: tools/go.mod
	cd tools && $(GO) build -o $(BIN)/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

arch: ## Check the rules of the house: layers, sizes, comments, purity
	$(GO) test -count=1 ./internal/archtest

docs: ## Write the generated pages of docs/ and the golden files again
	scripts/docs.sh

bench: build ## Measure Perdure, its peers and the floor, in less than five minutes
	$(GO) run ./bench -quick -perdure $(BIN)/perdure

# How long chaos lasts; its table is printed.
SOAK_MINUTES ?= 10

soak: ## Long random histories, long fuzzing, hours of chaos (stop it when you have enough)
	SOAK=1 SOAK_MINUTES=$(SOAK_MINUTES) $(GO) test -count=1 -timeout 12h -v -run TestChaos ./e2e
	PERDURE_HISTORIES=1000000 $(GO) test -count=1 -timeout 12h ./internal/supervise
	scripts/fuzz.sh 10m
	SOAK=1 $(GO) test -count=1 -timeout 12h -skip TestChaos ./e2e

cross: ## Build for every system that we support
	scripts/cross.sh

clean: ## Remove what was built
	rm -rf $(BIN)
