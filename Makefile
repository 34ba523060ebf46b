# The two commands are `make run` and `make test`; everything else is a part of them or a tool for developers.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2
PROMQLTEST ?= ../shared/data/promqltest

.DEFAULT_GOAL := help
.PHONY: help install install-dev run test test-quick lint types kernels bench bench-large bench-storage soak bench-agent bench-security security-live conformance security-conformance fuzz layout system-packages clean

help: ## Show this list.
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	@$(PYTHON) scripts/check_python.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

define prepare
$(BIN)/python -m web.ui.build
$(BIN)/vedette warm
@touch $(VENV)/.installed
endef

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	$(prepare)

$(VENV)/.packages-dev: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.packages-dev
	$(prepare)
	@touch $@

install: $(VENV)/.installed ## Build .venv, install Vedette there, compile its kernels.

install-dev: $(VENV)/.installed-dev ## The same with the tools for tests.

run: $(VENV)/.installed ## Serve on :9090 with a store under ./data; ARGS="--flag ..." are passed on.
	$(BIN)/vedette serve --storage.tsdb.path=data/ $(ARGS)

system-packages:
	@bash scripts/system-packages

test: $(VENV)/.packages-dev system-packages ## Install what the tests need, then run all of them.
	@$(MAKE) --no-print-directory -j3 --output-sync=target lint types kernels
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone" $(ARGS)
	$(BIN)/python -m pytest -m alone tests/e2e $(ARGS)

test-quick: $(VENV)/.installed-dev ## The tests that start no server.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not e2e and not browser" $(ARGS)

lint: $(VENV)/.packages-dev ## ruff.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.packages-dev ## mypy, strict.
	$(BIN)/mypy

kernels: $(VENV)/.installed-dev
	$(BIN)/vedette warm

bench: $(VENV)/.installed-dev system-packages ## Vedette beside Prometheus and VictoriaMetrics: load, queries, then every bar of the store.
	$(BIN)/python -m benchmarks.run --size small $(ARGS)
	$(BIN)/python -m benchmarks.storage --form brief

bench-large: $(VENV)/.installed-dev system-packages ## The same at 100,000 series.
	$(BIN)/python -m benchmarks.run --size large $(ARGS)

bench-storage: $(VENV)/.installed-dev system-packages ## The bars of the store at a larger size; ARGS="SUBJECT ... --form full".
	$(BIN)/python -m benchmarks.storage $(ARGS)

soak: $(VENV)/.installed-dev ## Twenty minutes of everything at once: is memory flat? ARGS="--minutes N".
	$(BIN)/python -m benchmarks.mixed $(ARGS)

.PHONY: bench-query
bench-query: $(VENV)/.installed-dev system-packages ## 34 query classes beside Prometheus and VictoriaMetrics; ARGS="--hosts 40 --hours 6".
	$(BIN)/python -m benchmarks.queryrun --folder $${TMPDIR:-/tmp}/vedette-bench-query $(ARGS)

conformance: $(VENV)/.installed-dev ## Prometheus's own query test files; prints the count.
	$(BIN)/vedette test promql "$(PROMQLTEST)"

security-conformance: $(VENV)/.installed-dev ## Falco's rule files, rule fixtures, audit events, CloudTrail, captures; prints the counts.
	$(BIN)/python -m tests.security.conformance

security-live: $(VENV)/.installed-dev system-packages ## As root: 66 real actions on this kernel, and the rules they raise; ARGS="NAME ..." for some.
	$(BIN)/python -m tests.agent.live.suite $(ARGS)

bench-agent: $(VENV)/.installed-dev system-packages ## The agent's loss and cost as root, beside bpftrace; ARGS="metrics rules slowdown idle".
	$(BIN)/python -m benchmarks.agent $(ARGS)

bench-security: $(VENV)/.installed-dev ## As root: events a second through the rules, with the mix; from an action to its sample.
	$(BIN)/python -m benchmarks.security $(ARGS)
	$(BIN)/python -m benchmarks.eventlatency

fuzz: $(VENV)/.installed-dev ## Random queries against the slow interpreter; ARGS="--seed N --count N".
	$(BIN)/python -m tests.fuzz.run $(ARGS)

layout: ## Write docs/layout.md, the list of modules.
	$(BIN)/python scripts/layout.py

.PHONY: crash
crash: $(VENV)/.installed-dev ## The disk failing at every call, and twenty kills, of the store and of the server; SEED=n repeats a run.
	@seed=$${SEED:-$$RANDOM}; echo "repeat with: make crash SEED=$$seed"; \
	VEDETTE_FAULT_EVERY=1 VEDETTE_FAULT_SEED=$$seed VEDETTE_KILL_ROUNDS=20 VEDETTE_KILL_SEED=$$seed \
	$(BIN)/python -m pytest tests/tsdb/test_faults.py tests/tsdb/test_kill.py tests/e2e/test_kill_nine.py --timeout 3600 $(ARGS)

clean: ## Remove the virtual environment and caches, never ./data.
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis web/ui/vendor
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
