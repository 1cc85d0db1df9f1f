# Two commands: `make demo` measures a policy gradient, `make test` runs the tests.
# Each makes .venv when it is missing and installs again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo/inverted_pendulum.h5

.PHONY: demo test clean

demo: $(VENV)/.installed
	$(BIN)/gradlab measure inverted_pendulum --output $(DEMO) --overwrite

test: $(VENV)/.installed-dev
	bash tests/ensure_chromium.sh $(BIN)/python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# An interrupted `venv` leaves a python without pip, so pip is what is asked for.
define create_venv
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(create_venv)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(create_venv)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
