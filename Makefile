# Two commands: `make demo` measures a policy gradient, `make test` runs the tests.
# `make ray` tests workers and sweeps on Ray, in a virtual environment of their own.
# `make engines` tests the adapters of other simulators, in a virtual environment of their own.
# Each makes .venv when it is missing and installs again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo/path_tracking.h5
# The policy and the critic that reports/path-tracking is about.
NETWORKS := reports/path-tracking/path_tracking

.PHONY: demo test engines ray clean
.SILENT:

demo: $(VENV)/.installed
	echo "Measuring policy gradients on path tracking (about a minute)"
	$(BIN)/gradlab measure path_tracking --policy $(NETWORKS).policy.safetensors \
		--critic $(NETWORKS).critic.safetensors --starts 128 --output $(DEMO) --overwrite

test: $(VENV)/.installed-dev
	bash tests/ensure_chromium.sh $(BIN)/python
	echo "Running the tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

engines: .venv-engines/.installed
	echo "Testing the adapters of other simulators (they compile for minutes)"
	.venv-engines/bin/python -m pytest -q -m engines tests/engines

ray: .venv-ray/.installed
	echo "Testing workers and sweeps on Ray"
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest -q -m ray tests/workers tests/sweeps

.venv-ray/.installed: pyproject.toml constraints.txt
	$(PYTHON) install.py .venv-ray ray-tests
	touch $@

.venv-engines/.installed: pyproject.toml constraints.txt
	$(PYTHON) install.py .venv-engines engines
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) install.py $(VENV)
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) install.py $(VENV) dev
	touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
