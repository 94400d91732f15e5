# Everything that is done with this repository. "make help" lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# PREFIX and DESTDIR are for install.
PREFIX ?= /usr/local
DESTDIR ?=
# FUZZTIME is for each fuzz target.
FUZZTIME ?= 10s
IMAGE ?= sallyport:$(VERSION)
# KERNELS are for test-kernels.
KERNELS ?= 6.1 6.12

COMMANDS := sallyport sallyport-capture sallyport-proxy
# PostgreSQL's parser is C, so the commands need cgo.
GO_BUILD = CGO_ENABLED=1 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION) $(LDFLAGS)'

.PHONY: help
help: ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## install what this machine lacks (Debian, Ubuntu; as root)
	@tools/setup

.PHONY: build
build: ## build the three commands into bin/
	@mkdir -p bin
	$(GO_BUILD) -o bin/ $(COMMANDS:%=./cmd/%)

.PHONY: generate
generate: setup ## make the generated files again: BPF objects, docs/configuration.md
	go generate ./...
	go run ./tools/configdoc > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

.PHONY: lint
lint: setup ## gofmt, go vet, staticcheck, clang-format, shellcheck
	@tools/lint/run

.PHONY: check-generated
check-generated: setup ## fail when a generated file is not what its sources give
	@tools/lint/generated

.PHONY: test
test: setup build ## everything, against the real kernel and servers (as root)
	go vet ./...
	go test -race -timeout 10m ./...

.PHONY: test-conformance
test-conformance: build ## other projects' drivers and clients give the same through Sallyport as directly (as root)
	@tools/setup --clients
	go vet -tags conformance ./test/conformance
	go test -tags conformance -timeout 20m ./test/conformance

.PHONY: test-nft
test-nft: setup build ## the end-to-end tests, captured by nftables (as root)
	SALLYPORT_TEST_CAPTURE=nft go test -timeout 10m ./test/e2e

.PHONY: test-kernels
test-kernels: setup ## the tests of capture on Debian's own KERNELS (6.1 6.12), in emulated machines
	@tools/kernels/run $(KERNELS)

.PHONY: fuzz
fuzz: setup ## run each fuzz target for FUZZTIME (10s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$package"; \
		done; \
	done

.PHONY: bench
bench: ## compare throughput with direct connections, pgbouncer and haproxy (as root)
	@tools/setup --bench
	@$(MAKE) --no-print-directory build
	@tools/bench

.PHONY: demo
demo: setup build ## show it at work on this machine; leaves nothing behind (as root)
	@tools/demo

.PHONY: image
image: ## build the container image IMAGE
	docker build --build-arg VERSION=$(VERSION) -t $(IMAGE) .

.PHONY: install
install: build ## install commands and the systemd unit below PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)/etc/sallyport
	install -m 0755 $(COMMANDS:%=bin/%) $(DESTDIR)$(PREFIX)/bin/
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|g' deploy/systemd/sallyport.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/sallyport.service
	chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/sallyport.service

.PHONY: clean
clean: ## remove what build made
	rm -rf bin
