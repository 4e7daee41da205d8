PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 4# processes of the fast tests; most of them wait
CLUSTERS ?= 2# clusters of the end-to-end tests, side by side; for a cluster of your own: 0
NODE ?=# image of kind's nodes, such as kindest/node:v1.35.5; kind's own choice if empty
ADVISORIES ?=# of `make audit`: a directory or zip of OSV records; empty: the index is asked
export COPILOT_KIND_NODE := $(NODE)
.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

# --- development ---------------------------------------------------------------------------------

.PHONY: venv crds docs chart lint types imports
venv: $(VENV)/.done ## Install the package and the tools it is developed with into .venv
$(VENV)/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

crds: venv ## Generate crds/ from the models
	$(BIN)/copilot-operator crds --out crds

docs: venv ## Generate what of docs/ and manifests/monitoring/ is made from the code
	$(BIN)/python -m tests.docs

chart: crds docs ## Generate what of charts/ is made from crds/, manifests/monitoring/ and its schema of values
	$(BIN)/python -m tests.chart

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

test-contract: venv ## The real CLI and its stand-in, one suite for both; the status page in a real browser
	$(BIN)/pytest -n 2 --dist loadfile tests/contract tests/browser

test-e2e: venv ## The operator on a real cluster with real servers
	$(BIN)/python -m tests.cluster build  # the first time takes longer than a test may
	$(BIN)/python -m tests.support.helm
	$(BIN)/pytest -n $(CLUSTERS) --dist worksteal tests/e2e

# --- a cluster, images, and the demo -------------------------------------------------------------

.PHONY: lock
lock: venv ## Pin the newest dependencies of the operator's image, with their digests
	$(BIN)/python -m tests.cluster.image_wheels

.PHONY: audit
audit: venv ## Known vulnerabilities of what is pinned: of the index, or of ADVISORIES=PATH, records of OSV (directory or zip)
	@if [ -n "$(ADVISORIES)" ]; then $(BIN)/python -m tests.support.advisories "$(ADVISORIES)"; else \
		$(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit==2.10.1 && \
		build/audit/bin/pip-audit --strict --disable-pip --requirement operator/images/operator/requirements.txt; fi

.PHONY: images cluster-up cluster-down demo down kind
images: venv ## Build the images of the CLI and of the operator (cached)
	$(BIN)/python -m tests.cluster.images build

cluster-up: venv ## Have a real Kubernetes running: kind where Docker answers, else an embedded one
	$(BIN)/python -m tests.cluster up

cluster-down: ## End it and leave nothing behind
	$(PYTHON) -m tests.cluster down

demo: venv ## From here to conversations with three tenants' own servers
	$(BIN)/python -m tests.demo

.PHONY: picture
picture: venv ## Take the picture of the status page that is in the docs, of the demo that runs
	$(BIN)/python -m tests.demo.picture

down: cluster-down ## Take the demo down, with its cluster

kind: venv ## A kind cluster with images and the operator in it: NODE=kindest/node:v1.35.5
	$(BIN)/python -m tests.cluster --kind kind up
	$(BIN)/python -m tests.support.installation

# --- a release -----------------------------------------------------------------------------------

.PHONY: image-context package helm
image-context: venv ## The context of the operator's image, in build/; the digests in the list of pins are those of x86_64
	rm -rf build/context && mkdir -p build/context/project
	pins=operator/images/operator/requirements.txt; pinned=--require-hashes; \
	if [ "$$(uname -m)" != x86_64 ]; then \
		sed 's/ \\$$//; /--hash/d' $$pins >build/versions.txt; pins=build/versions.txt; pinned=; \
	fi; $(BIN)/pip download --quiet --no-deps $$pinned --requirement $$pins --dest build/context/dependencies
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/context/project .

package: venv ## The chart as an archive, in dist/
	mkdir -p dist
	"$$($(BIN)/python -m tests.support.helm)" package charts/copilot-operator --destination dist

helm: venv ## The path of Helm, which is compiled if it is not there
	@$(BIN)/python -m tests.support.helm

# --- figures (not part of the tests) -------------------------------------------------------------

.PHONY: bench-operator bench-drain bench-gateway bench-sessions bench-moves bench-janitor stress-drain stress-gateway stress-rotate
bench-operator: venv ## N tenants on simulated nodes against a bare client: N=100, or 100 and then 1000
	$(BIN)/python -m tests.scale $(N)

bench-drain: venv ## 200 idle servers drained at once, dead ones found and replaced while 500 others hang
	$(BIN)/python -m tests.scale.drain

bench-gateway: venv ## The gateway beside HAProxy, and beside no proxy
	$(BIN)/python -m tests.scale.gateway

.PHONY: bench-runtimes
bench-runtimes: venv ## Start and memory of the CLI and of copilot-runtime: N=15 starts of each
	$(BIN)/python -m tests.scale.runtimes $(N)

bench-sessions: venv ## 60 clients where 20 sessions may be loaded, through two gateways: CLI=real or standin
	$(BIN)/python -m tests.scale.sessions

bench-moves: venv ## A session that moves between servers with a shared volume
	$(BIN)/python -m tests.scale.moves

bench-janitor: venv ## What looking for expired sessions costs a real CLI with 10,000 of them
	$(BIN)/python -m tests.scale.janitor

.PHONY: bench-page
bench-page: venv ## What a viewer of the status page costs an operator with 2,000 tenants
	$(BIN)/python -m tests.scale.page

.PHONY: bench-wake bench-idle stress-wake stress-sleepers
stress-wake: venv ## Servers that sleep and are woken leave nothing behind: WAKES=200 of each of TENANTS=3, CLI=standin
	$(BIN)/python -m tests.stress.wake

stress-sleepers: venv ## The same with a real operator and its objects, on simulated nodes: WAKES=200 of each of TENANTS=6
	$(BIN)/python -m tests.stress.sleepers

bench-idle: venv ## 1,000 tenants of whom 20 are active at a time, on simulated nodes: how many servers are awake
	$(BIN)/python -m tests.scale.idle

bench-wake: venv ## What a request waits for whose server sleeps, beside what its pod takes alone: real CLI, WAKES=12
	$(BIN)/python -m tests.scale.wake

stress-drain: venv ## Servers stopped for every cause, under turns: STOPS=1000, SEED=..., DRAIN=off, CLI=real
	$(BIN)/python -m tests.stress

stress-gateway: venv ## Two gateways killed, servers drained and restarted, under clients: EVENTS=200, SEED=..., KEEP=off, CLI=real
	$(BIN)/python -m tests.stress.gateways

stress-rotate: venv ## Tokens that end, servers that take the next ones, under turns: LIFE=90, LASTS=900, CLIENTS=10, ROTATION=off
	$(BIN)/python -m tests.stress.rotation
