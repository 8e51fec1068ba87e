SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# make run ARGS="--listen 0.0.0.0:8080 --tls"
ARGS ?=
# make test STAGES="fmt clippy": a part of it; all of them when empty
STAGES ?=
# make fuzz SECONDS_EACH=600, make soak SECONDS_SOAK=3600
SECONDS_EACH ?= 60
SECONDS_SOAK ?= 600

.PHONY: help run test lint bench fuzz soak images

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and serve the demo, through a router, on http://127.0.0.1:8080 (ARGS="--help" shows what it takes)
	@source tests/setup/build-tools.sh && exec cargo run --release --locked -p streamfleet-cli --bin streamfleet -- fleet $(ARGS)

test: ## install what the tests need, then run all of them (STAGES="fmt unit": some of them)
	@tests/setup/test.sh $(STAGES)

lint: ## formatting, clippy, licences and banned dependencies
	@tests/setup/test.sh fmt clippy deny

bench: ## sessions per core beside FastRTC and aiortc; writes docs/benchmarks.md
	@bench/bench.sh $(ARGS)

fuzz: ## every fuzz target for SECONDS_EACH seconds
	@tests/setup/fuzz.sh $(SECONDS_EACH)

soak: ## steady load for SECONDS_SOAK seconds; fails when memory or sessions grow
	@tests/setup/soak.sh $(SECONDS_SOAK)

images: ## images of the release programs, FROM scratch, with lists of what is in them; no container engine needed (ARGS=REGISTRY)
	@images/build.sh $(ARGS)
