# Every target sets up what it needs: a Python 3.11 or newer and make are enough.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test test-all lint demo bench drill screenshots man completion dist clean

BIN := .venv/bin
READY := .venv/.ready
BENCH_READY := .venv/.ready-bench
# Two processes, since the suite is sized for a small machine; WORKERS=8 for a larger one.
WORKERS := 2
PYTEST := $(BIN)/pytest -n $(WORKERS)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY)  ## make .venv and install regrain with its tools into it

# A candidate is tested by running it, since a version manager's shim may exist without its Python.
# uv installs faster; where it cannot be had or cannot reach what pip is set up for, pip does it.
# Without bytecode on disk every start of a command would compile its libraries anew.
unexport PYTHONDONTWRITEBYTECODE

$(READY): pyproject.toml constraints.txt
	@probe='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	$(BIN)/python -c "$$probe" 2>/dev/null && exit; \
	for python in python3.14 python3.13 python3.12 python3.11 python3; do \
		if $$python -c "$$probe" >/dev/null 2>&1; then \
			echo "making .venv with $$($$python --version)"; \
			exec $$python -m venv --clear .venv; \
		fi; \
	done; \
	echo "regrain needs Python 3.11 or newer, with its venv and ensurepip modules:" >&2; \
	echo "none of python3.14 ... python3.11, python3 on PATH is one" \
		"(on Debian: apt install python3-venv)" >&2; \
	exit 1
	@if $(BIN)/python -m pip install --quiet --constraint constraints.txt uv; then \
		$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt \
			--build-constraint constraints.txt --group dev --compile-bytecode --editable . && exit; \
	fi; \
	echo "uv could not do it, so pip does" >&2; \
	$(BIN)/python -m pip install --quiet 'pip>=25.1' && \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	@touch $@

# With worksteal what the tests of a file share is made by one process, not by both, and whoever is
# done first takes work from the other.
test: lint  ## check the style, then run all but the slow tests
	$(PYTEST) --dist=worksteal -m "not slow"

# Every fault is counted that a test which passed injected; the page gets the table of a whole run.
TALLY := build/faults.jsonl
test-all: lint  ## check the style, run every test, and say which faults were injected
	@mkdir -p build && rm -f $(TALLY)
	REGRAIN_TALLY=$(abspath $(TALLY)) $(PYTEST); status=$$?; \
	$(BIN)/python -m tests.faults.table $(TALLY); \
	[ $$status != 0 ] || $(BIN)/python -m tests.faults.table $(TALLY) docs/reliability.md; exit $$status

lint: $(READY)  ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

demo: $(READY)  ## migrate a small store before your eyes
	$(BIN)/python -m bench.demo

# What draws the plots is not for everybody; where it cannot be had there are tables alone.
$(BENCH_READY): $(READY)
	-@if [ -x $(BIN)/uv ]; then \
		$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group bench; \
	else \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench; \
	fi
	@touch $@

BENCH :=
bench: $(BENCH_READY)  ## measure regrain beside its neighbours; BENCH="--rounds 1 --corpus sample"
	$(BIN)/python -m bench $(BENCH)

DRILL :=
drill: $(READY)  ## rehearse operating a store in use, with disturbances; writes docs/drill.md
	$(BIN)/python -m bench.drill $(DRILL)

screenshots: $(READY)  ## take the pictures in docs/images, of a real migration; needs chromium
	$(BIN)/python -m bench.screenshots

man: $(READY)  ## write the man pages to build/man
	$(BIN)/python -m regrain.cli.manual build/man

completion: $(READY)  ## write the completions of bash, zsh and fish to build/completion
	mkdir -p build/completion
	_REGRAIN_COMPLETE=bash_source $(BIN)/regrain > build/completion/regrain.bash
	_REGRAIN_COMPLETE=zsh_source $(BIN)/regrain > build/completion/_regrain
	_REGRAIN_COMPLETE=fish_source $(BIN)/regrain > build/completion/regrain.fish

# The time in the archives is that of the last commit: the same commit gives the same bytes.
dist: $(READY)  ## build sdist and wheel into dist, the same bytes every time
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/hatchling build

clean:  ## remove all that was made here, .venv included
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
