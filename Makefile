# Two commands do everything on a fresh machine with Python and Rust:
#   make bench   sets up, builds, compares loops in under two minutes
#   make test    sets up, builds, and passes every check and test
# PYTHON=/path/to/python VENV=.venv-other chooses the interpreter for a new environment; one
# that exists keeps its own.

PYTHON ?= python3
VENV ?= .venv
# A test that fails is run again on its own; the summary counts and names the reruns.
RERUNS := --reruns 2
TESTS ?=

BIN := $(VENV)/bin
PY := $(BIN)/python
export PYO3_PYTHON := $(abspath $(PY))
# maturin installs there; without it, only into one that is called .venv.
export VIRTUAL_ENV := $(abspath $(VENV))
# A loop under test is never chosen by what the caller's shell exports.
unexport PYTHONPATH TOKIOLOOP_UNDER_TEST RUST_LOG

# What draws flame graphs, for the profiler and its tests.
FLAME_TOOLS := target/tools/bin/inferno-flamegraph
export TOKIOLOOP_TOOLS ?= $(abspath target/tools/bin)

# The load generator uses epoll and chooses its core, so elsewhere it is no part of the checks.
ON_LINUX := $(filter Linux,$(shell uname -s))
CRATES := --workspace $(if $(ON_LINUX),,--exclude tokioloop-load)

LOOM_FLAGS := --cfg loom
PROFILING_FLAGS := -C force-frame-pointers=yes

.PHONY: help bench bench-full metrics-cost test check lint cargo-test loom pytest checked \
        conformance conformance-here interop-programs memcheck build profiling profile setup tools linux fmt clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=/path/to/python VENV=.venv-other chooses the interpreter for a new environment."

# --- set-up -----------------------------------------------------------------

tools:
	@command -v cargo >/dev/null || { echo "tokioloop needs Rust (cargo) 1.85 or later: see https://rustup.rs"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "tokioloop needs Python 3.10 or later: $(PYTHON) was not found"; exit 1; }
	@command -v cc >/dev/null || { echo "tokioloop needs a C compiler to link with (cc): install gcc or clang"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 15))' || \
	  { echo "tokioloop needs CPython 3.10 to 3.15: $(PYTHON) is $$($(PYTHON) -V 2>&1)"; exit 1; }
	@$(PYTHON) -c 'import sys, sysconfig; sys.exit(sys.version_info < (3, 14) and bool(sysconfig.get_config_var("Py_GIL_DISABLED")))' || \
	  { echo "tokioloop needs free-threaded CPython 3.14 or later: $(PYTHON) is $$($(PYTHON) -V 2>&1)"; exit 1; }

linux:
	@$(if $(ON_LINUX),:,echo "this needs Linux: the load generator (perf/load) uses epoll"; exit 1)

$(PY): | tools
	@# An interpreter without pip would pass for a set-up environment next time.
	$(PYTHON) -m venv $(VENV) || { rm -f $(PY); exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.build-tools: pyproject.toml | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check 'maturin>=1.9,<2' ruff mypy
	@touch $@

$(VENV)/.test-tools: tests/requirements.txt tests/interop/requirements.txt $(VENV)/.build-tools
	$(PY) tests/install.py tests/requirements.txt
	$(PY) tests/install.py tests/interop/requirements.txt
	@touch $@

$(VENV)/.bench-tools: perf/requirements.txt $(VENV)/.build-tools
	$(PY) tests/install.py perf/requirements.txt
	@touch $@

$(FLAME_TOOLS): | tools
	cargo install --quiet --locked --debug inferno --root target/tools \
	  --bin inferno-flamegraph --bin inferno-diff-folded

setup: $(VENV)/.test-tools ## the environment alone

# --- builds -----------------------------------------------------------------

# Quiet; a build that fails is run again, for its errors to be seen.
build: $(VENV)/.build-tools ## build and install a release build
	$(PY) -m maturin develop --quiet --release --skip-install-hint 2>/dev/null || $(PY) -m maturin develop --release

# Symbols and frame pointers, for perf record -g.
profiling: $(VENV)/.build-tools ## a build with frame pointers
	RUSTFLAGS="$(PROFILING_FLAGS)" $(PY) -m maturin develop --profile profiling --target-dir target/profiling-build

# --- the main job -----------------------------------------------------------

bench: linux $(VENV)/.bench-tools build ## set up, build, compare loops in under two minutes
	cargo build --quiet --release -p tokioloop-load
	$(PY) perf/benchmark.py --quick

bench-full: linux $(VENV)/.bench-tools build ## every workload against every loop that installs
	cargo build --quiet --release -p tokioloop-load
	$(PY) perf/benchmark.py --full

profile: linux $(VENV)/.bench-tools $(FLAME_TOOLS) profiling ## flame graphs of a workload (WORKLOAD=stream)
	cargo build --quiet --release -p tokioloop-load
	$(PY) -m tokioloop profile --workload $(or $(WORKLOAD),proto)

# What counting costs, against a build without counters.
metrics-cost: linux $(VENV)/.bench-tools build ## what counting for metrics() costs
	cargo build --quiet --release -p tokioloop-load
	rm -rf target/uncounted && mkdir -p target/uncounted
	RUSTFLAGS="--cfg tokioloop_uncounted" $(PY) -m maturin build --quiet --release \
	  --target-dir target/uncounted-build --out target/uncounted
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target target/uncounted/site target/uncounted/*.whl
	$(PY) perf/metrics_cost.py proto stream --without target/uncounted/site

# --- checks and tests -------------------------------------------------------

test: check pytest ## set up, build, pass every check and test

check: lint cargo-test loom ## what needs no extension: lint, cargo-test, loom

lint: $(VENV)/.test-tools ## formatting, clippy, rustdoc, ruff, mypy
	cargo fmt --all --check
	cargo clippy --quiet $(CRATES) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p tokioloop-reactor
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

cargo-test: $(VENV)/.build-tools ## the Rust tests
	cargo test --quiet $(CRATES)

loom: ## the inbox under every order of threads
	RUSTFLAGS="$(LOOM_FLAGS)" cargo test --quiet --release --target-dir target/loom -p tokioloop-reactor --test inbox_loom

pytest: $(VENV)/.test-tools $(FLAME_TOOLS) interop-programs build ## the Python tests (TESTS="tests/tls -k sni")
	$(PY) -m pytest -q -rR $(RERUNS) $(TESTS)

# The same suite with debug assertions, overflow checks and CPython's own checks on, by WORKERS
# processes side by side if told so.
checked: $(VENV)/.test-tools ## the Python tests on a build with debug assertions
	$(PY) -m maturin develop --quiet --profile checked
	$(PY) -c 'from tokioloop import _core; assert _core.BUILD_PROFILE == "checked", _core.BUILD_PROFILE'
	PYTHONDEVMODE=1 PYTHONMALLOC=debug TOKIOLOOP_EXPECT_PROFILE=checked \
	  $(PY) -m pytest -q -rR $(RERUNS) $(if $(WORKERS),-n $(WORKERS)) --loops tokioloop $(TESTS)

# Servers that the interop tests talk to; what cannot be installed is skipped there, visibly.
interop-programs:
	@sh tests/interop/install-programs.sh

# Races between threads under valgrind: minutes, and no part of the suite.
memcheck: build ## races between threads under valgrind
	tests/stress/memcheck.sh $(PY)

# CPython's own tests on TokioLoop, with every interpreter of this machine (or those of PYTHONS).
conformance: tools ## CPython's own asyncio tests, on every interpreter found
	$(PYTHON) tests/conformance/everywhere.py $(PYTHONS)

# The same for PYTHON alone.
conformance-here: $(VENV)/.build-tools build ## the same on PYTHON
	$(PY) tests/conformance/run.py $(if $(REPORT),--report $(REPORT))

fmt: $(VENV)/.build-tools ## format everything
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove builds and environments
	rm -rf target .venv* python/tokioloop/*.so
