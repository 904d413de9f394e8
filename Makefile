# Gristmill: `make demo` goes from a fresh clone to a trained model. Every target first installs what this machine lacks.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup lint-setup test-setup peers build demo test check fuzz bench

# One target directory for all clones: a second checkout does not compile the dependencies again.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gristmill/target
# rustup's place, for a shell that was opened before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Extra flags for cargo: `make FEATURES=--no-default-features demo` builds without OpenBLAS.
FEATURES ?=
ifneq ($(findstring no-default-features,$(FEATURES)),)
export GRISTMILL_NO_OPENBLAS := 1
endif
GRISTMILL := $(CARGO_TARGET_DIR)/release/gristmill

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: ## install what building needs: C compiler, pkg-config, OpenBLAS headers, Rust
	@.ci/setup

lint-setup:
	@.ci/setup lint

build: setup ## build the release binary
	cargo build --release --locked $(FEATURES) --bin gristmill
	@echo "built $(GRISTMILL)"

demo: setup ## build in two thirds of the time of a release, then turn real flights into a model
	cargo build --profile demo --locked $(FEATURES) --bin gristmill
	$(CARGO_TARGET_DIR)/demo/gristmill run examples/jobs/late_flights.sql

check: lint-setup ## format, lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked $(FEATURES) -- -D warnings

peers: ## install the servers and readers that tests run against; what cannot be had is said
	@.ci/peers/install

test-setup:
	@.ci/setup test

test: check test-setup peers ## format, lints, then every test
	cargo test --workspace --locked --no-fail-fast $(FEATURES)

# Statements that `make fuzz` tries in one process and on a cluster, and what they follow from.
N ?= 2000
CLUSTER ?= 500
SEED ?= 1
PEERS := $(or $(GRISTMILL_PEERS),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gristmill/peers)

fuzz: build peers ## random statements against DuckDB (N=2000 CLUSTER=500 SEED=1); shows what differs, made small
	$(PEERS)/python/bin/python tests/fuzz --binary $(GRISTMILL) -n $(N) --cluster $(CLUSTER) --seed $(SEED)

bench: build ## ours and every peer that is installed, in turn: one table of ratios (benches/README.md)
	benches/all.sh
