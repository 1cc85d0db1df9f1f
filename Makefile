# Two commands: `make demo` measures a policy gradient, `make test` runs the tests.
# `make docs` builds the site into build/site.
# `make reports` makes the pages of claims and advice again from their tables, into build/reports.
# `make ray` tests sweeps and asynchronous training on Ray, in a virtual environment of their own.
# `make floors` tests on the lowest versions, those of floors.txt, in a virtual environment of their own.
# `make engines` tests from_jax, from_warp and examples/engines, in a virtual environment of their own.
# `make package` builds dist/, checks its metadata and tries the wheel outside of the repository.
# Each makes .venv when it is missing and installs again when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo/path_tracking.h5
# The policy and the critic that reports/path-tracking is about.
NETWORKS := reports/path-tracking/path_tracking

REPORTS := build/reports

# What the lowest versions are tried with: their wheels are 6 GB, and other libraries want newer ones.
NUMERICAL := tests/test_theory.py $(addprefix tests/,checks choice data fitting gradients \
	measurement networks runs statistics storage systems tasks training truth)

# $(call install,FOLDER,WHAT[,VERSIONS]): in a virtual environment, made again where pip lacks.
define install
	$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1)
	echo "Installing torch and the rest into $(1) (about 1.7 GB; one to three minutes)"
	$(1)/bin/python -m pip install --no-input -c $(or $(3),constraints.txt) -e '$(2)'
endef

.PHONY: demo test docs reports floors engines ray package clean
.SILENT:

demo: $(VENV)/.installed
	echo "Measuring policy gradients on path tracking (about two minutes)"
	$(BIN)/gradlab measure path_tracking --policy $(NETWORKS).policy.safetensors \
		--critic $(NETWORKS).critic.safetensors --starts 128 --output $(DEMO) --overwrite

# Workers and the programs that tests start keep compiled modules, which each compiled anew.
test: $(VENV)/.installed-dev
	bash tests/ensure_chromium.sh $(BIN)/python
	echo "Running the tests"
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

docs: $(VENV)/.installed-dev
	echo "Building the site (half a minute)"
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs . build/site
	echo "The site begins at build/site/index.html"

reports: $(VENV)/.installed
	echo "Making the pages of claims and advice again from their tables"
	rm -rf $(REPORTS)
	mkdir -p $(REPORTS)/advice
	cp reports/advice/cells.jsonl $(REPORTS)/advice
	$(BIN)/python -m analyses.claims --output $(REPORTS)
	$(BIN)/python -m analyses.advice --verdict --output $(REPORTS)/advice

floors: .venv-floors/.installed
	echo "Testing on the lowest versions"
	OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest -q -n 2 --dist worksteal $(NUMERICAL)

engines: .venv-engines/.installed
	echo "Testing steps of other engines (they compile for minutes)"
	.venv-engines/bin/python -m pytest -q -m engines tests/engines

ray: .venv-ray/.installed
	echo "Testing sweeps and asynchronous training on Ray"
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest -q -m ray tests/test_cluster.py

package: $(VENV)/.installed-dev .venv-release/.installed
	echo "Building dist/"
	rm -rf build/lib build/bdist.* dist
	.venv-release/bin/python -m build --outdir dist . >build.log 2>&1 || { cat build.log; exit 1; }
	rm -rf build/lib build/bdist.* build.log
	.venv-release/bin/twine check --strict dist/*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m package tests/test_wheel.py

.venv-release/.installed: Makefile
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --no-input 'build>=1.2' 'twine>=6.1'
	touch $@

.venv-floors/.installed: pyproject.toml floors.txt
	$(call install,.venv-floors,.[floors],floors.txt)
	touch $@

.venv-ray/.installed: pyproject.toml constraints.txt
	$(call install,.venv-ray,.[ray-tests])
	touch $@

.venv-engines/.installed: pyproject.toml constraints.txt
	$(call install,.venv-engines,.[engines])
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,$(VENV),.)
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(call install,$(VENV),.[dev])
	touch $@ $(VENV)/.installed

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
