PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 4# processes of the fast tests; most of them wait
CLUSTERS ?= 2# clusters of the end-to-end tests, side by side; for a cluster of your own: 0
.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

# --- development ---------------------------------------------------------------------------------

.PHONY: venv crds lint types imports
venv: $(VENV)/.done ## Install the package and the tools it is developed with into .venv
$(VENV)/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

crds: venv ## Generate crds/ from the models
	$(BIN)/copilot-operator crds --out crds

lint: venv ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv ## Types, strictly
	$(BIN)/mypy

imports: venv ## Who may import whom
	$(BIN)/lint-imports

# --- tests: fast tiers first, one cluster for the last -------------------------------------------

.PHONY: test test-fast test-contract test-e2e
test: test-fast test-contract test-e2e ## Everything that must hold, on real Kubernetes with the real CLI

test-fast: lint types imports ## Lint, types, imports, unit and property tests
	$(BIN)/pytest -n $(WORKERS) --dist worksteal tests/unit tests/property

test-contract: venv ## The real CLI and its stand-in, one suite for both
	$(BIN)/pytest -n 2 --dist loadfile tests/contract

test-e2e: venv ## The operator on a real cluster with real servers
	$(BIN)/python -m tests.cluster build  # the first time takes longer than a test may
	$(BIN)/pytest -n $(CLUSTERS) --dist worksteal tests/e2e

# --- a cluster, images, and the demo -------------------------------------------------------------

.PHONY: images cluster-up cluster-down demo down
images: venv ## Build the images of the CLI and of the operator (cached)
	$(BIN)/python -m tests.cluster.images build

cluster-up: venv ## Have a real Kubernetes running: kind where Docker answers, else an embedded one
	$(BIN)/python -m tests.cluster up

cluster-down: ## End it and leave nothing behind
	$(PYTHON) -m tests.cluster down

demo: venv ## From here to conversations with three tenants' own servers
	$(BIN)/python -m tests.demo

down: cluster-down ## Take the demo down, with its cluster

# --- figures (not part of the tests) -------------------------------------------------------------

.PHONY: bench-operator bench-drain bench-gateway stress-drain stress-gateway
bench-operator: venv ## N tenants on simulated nodes against a bare client: N=100, or 100 and then 1000
	$(BIN)/python -m tests.scale $(N)

bench-drain: venv ## 200 idle servers drained at once, dead ones found and replaced while 500 others hang
	$(BIN)/python -m tests.scale.drain

bench-gateway: venv ## The gateway beside HAProxy, and beside no proxy
	$(BIN)/python -m tests.scale.gateway

stress-drain: venv ## Servers stopped for every cause, under turns: STOPS=1000, SEED=..., DRAIN=off, CLI=real
	$(BIN)/python -m tests.stress

stress-gateway: venv ## Two gateways killed, servers drained and restarted, under clients: EVENTS=200, SEED=..., KEEP=off, CLI=real
	$(BIN)/python -m tests.stress.gateways
