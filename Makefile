# The same commands for people and for CI.
.DEFAULT_GOAL := help
SHELL := /bin/bash -o pipefail
TOOLS := target/tools
CARGO := cargo
export PATH := $(abspath $(TOOLS))/bin:$(abspath $(TOOLS))/venv/bin:$(PATH)

# Tests wait half of their time.
export RUST_TEST_THREADS ?= $(shell expr \( $$(getconf _NPROCESSORS_ONLN) \* 3 + 1 \) / 2)

SECONDS := 60
PROFILE := release
PEER := --locked --manifest-path benches/peer/Cargo.toml

.PHONY: help run test docs-test check fuzz ci chaos bench e2e fmt tools image image-test manifests generated

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## Run the server: http://127.0.0.1:8080 (no Redis needed; REDIS_URL joins nodes)
	$(CARGO) run --locked --bin chat-api

test: tools ## Run all tests; installs what they need first
	$(CARGO) build $(PEER) --target-dir target
	$(CARGO) test --locked

docs-test: tools ## Do what the documents say, block by block (part of `test`)
	$(CARGO) test --locked --test it -- docs::

check: tools ## Format, lints, docs, dependencies, generated files, scripts
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) fmt --check --manifest-path benches/peer/Cargo.toml
	$(CARGO) clippy $(PEER) --target-dir target -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	tests/dependencies.sh
	typos
	hadolint Dockerfile
	shellcheck .ci/run tests/*.sh tests/e2e/*.sh docs/examples/*.sh

fuzz: tools ## Fuzz all that comes from outside, for SECONDS (60); a seed that fails is kept in proptest-regressions/
	FUZZ_SECONDS=$$(($(SECONDS) / 2)) $(CARGO) test --locked --lib --test it -- fuzz --test-threads 16

image-test: tools ## Build the image as the Dockerfile says, over stand-ins for its bases, and run it
	tests/image.sh

ci: check test fuzz image-test ## What CI runs

bench: tools ## Compare with the kernel's least and with a plain axum chat; writes docs/benchmarks.md and its plots (20 minutes, nothing else running; ARGS="--quick", PROFILE=dist)
	$(CARGO) build --locked --profile $(PROFILE) --bins
	$(CARGO) build $(PEER) --profile $(PROFILE) --target-dir target
	target/$(PROFILE)/chat-load bench $(or $(ARGS),--docs docs)

chaos: tools ## Faults under load and the proof that nothing is lost; writes docs/reliability.md (10 minutes; CHAOS_ROWS="S1 S4" picks, CHAOS_SEED=1 repeats)
	$(CARGO) test --locked --release --test chaos -- --ignored --nocapture scorecard

e2e: tools ## Install the chart into the cluster that KUBECONFIG names and roll it under load (see tests/e2e/run.sh)
	tests/e2e/run.sh

fmt: ## Format the code
	$(CARGO) fmt

generated: tools ## Write docs/openapi.json, docs/asyncapi.json, the tables of docs/, deploy/kubernetes.yaml, the chart's README and its dashboard anew
	for document in openapi asyncapi; do \
		$(CARGO) run --locked --quiet --bin chat-api -- $$document > target/document.json && cp target/document.json docs/$$document.json || exit 1; done
	for document in docs/protocol.md docs/operations.md; do \
		$(CARGO) run --locked --quiet --bin chat-api -- tables $$document > target/document.md && cp target/document.md $$document || exit 1; done
	$(TOOLS)/venv/bin/python tests/chart/generated.py

image: ## Build the container image
	docker build --tag chat-api:$$(awk -F'"' '/^version = / && !found++ { print $$2 }' Cargo.toml) .

tools: ## Install what tests and checks need
	@tests/tools.sh $(TOOLS)
