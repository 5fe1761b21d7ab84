# ft-pair: a virtual machine that outlives its host. `make` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

CARGO ?= cargo
# The profile that the tests run in: release keeps the kernel's boot short.
TEST_PROFILE ?= release
IMAGE := var/images/base.img
# Arguments of the benchmarks; empty for the full measurement.
BENCH ?= --quick

.PHONY: help deps build image demo test lint bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the Debian packages that are missing (root or sudo)
	@scripts/deps.sh

build: deps ## build the command, release
	@echo '== build'
	$(CARGO) build --release --locked

image: deps ## make the guest image, unless there is one of the same recipe
	@echo '== image'
	@images/debian.sh base

demo: build image ## run a guest as a pair, kill its Master, check that nothing is lost
	@echo '== demo'
	@scripts/demo.sh $(IMAGE)

lint: deps ## format and lints
	@echo '== format'
	$(CARGO) fmt --all --check
	@echo '== lints'
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test: lint image ## everything: format, lints, and all tests with a real kernel
	@echo '== examples in the documentation'
	$(CARGO) test --workspace --locked --profile $(TEST_PROFILE) --doc
	@echo '== tests'
	$(CARGO) test --workspace --locked --profile $(TEST_PROFILE) --lib --bins --tests
	@echo '== boot, recording and replay with overflow checks and debug assertions'
	$(CARGO) test --locked -p ft-pair-machine --test debian
	$(CARGO) test --locked -p ft-pair --test system -- recording

bench: build image ## measure: against QEMU (where installed), slowdown, failover, logs, synchronisation
	@echo '== bench'
	target/release/ft-pair-bench all $(BENCH)

clean: ## remove what the other targets made
	$(CARGO) clean
	rm -rf var
