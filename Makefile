# `make demo` and `make test` need nothing but Python 3.10 or newer, its venv module, and PyPI.
VENV := .venv
LIBRARIES := .venv-libraries
BIN := $(VENV)/bin
OLDEST := .venv-oldest
DOCS := .venv-docs
OUT ?= demo-out
SEEDS ?= 3
BENCH_OUT ?= bench-out
KILLS ?= 200
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-faults test-oldest test-libraries test-notebooks notebooks lint bench-quick docs docs-serve dist clean

demo: $(VENV)/.report
	$(BIN)/lightning-dataselect compare --seeds $(SEEDS) --out $(OUT)

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not libraries and not docs'

# Tests of many processes, of all seeds or of ten million samples, which take as long again.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'slow and not libraries and not docs'

# Fits that are killed, full disks, workers and ranks that die: the tests run the short form.
test-faults: $(VENV)/.test
	$(BIN)/python -m benchmarks.faults --kills $(KILLS)

# Other packages' modules, in an environment of their own: they bring some gigabytes along.
test-libraries:
	$(MAKE) VENV=$(LIBRARIES) $(LIBRARIES)/.libraries
	$(LIBRARIES)/bin/python -m pytest -n 2 --dist worksteal tests/libraries

# What touches Lightning and torch most closely, with the oldest releases of both.
test-oldest: $(OLDEST)/.oldest
	$(OLDEST)/bin/python -c 'import lightning, sys, torch; print("Python", sys.version.split()[0], "torch", \
	  torch.__version__, "lightning", lightning.__version__)'
	$(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -m "not slow" tests/capture tests/trainer tests/data/test_loader.py \
	  tests/cli/test_cli.py tests/callbacks/test_resume.py tests/callbacks/test_selector_neutral.py \
	  tests/fit/test_epochs.py tests/fit/test_lr_schedulers.py

# Runs every notebook from a clean kernel and leaves the files alone; `make notebooks` writes what came out into them.
# Set CIFAR10N_DIR for the latter: without it clean_labels shows digits in place of CIFAR-10N.
test-notebooks: $(VENV)/.notebooks
	$(BIN)/jupyter execute --timeout=900 notebooks/*.ipynb

notebooks: $(VENV)/.notebooks
	$(BIN)/jupyter execute --inplace --timeout=900 --NotebookClient.record_timing=False notebooks/*.ipynb

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy lightning_dataselect

# Every study in its shortest form, which needs no data: that they run, not what they show.
bench-quick: $(VENV)/.test
	$(BIN)/python -m benchmarks.images --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.tabular --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.noisy_labels --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.text --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.translation --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.language_model --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.frontier_transformers --quick --out $(BENCH_OUT)

# The site, with warnings as errors and every link and anchor checked; then its code blocks and the examples are run,
# one of which needs transformers, as a notebook does.
docs: $(DOCS)/.docs $(VENV)/.test $(VENV)/.notebooks
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	$(BIN)/python -m pytest -m docs tests/project

docs-serve: $(DOCS)/.docs
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs serve

# Wheel and sdist, checked, and each installed into an environment of its own.
dist: $(DOCS)/.dist
	rm -rf dist
	$(DOCS)/bin/python -m build --quiet
	$(DOCS)/bin/twine check --strict dist/*
	for file in dist/*; do python3 -m venv --clear $(DOCS)/try && $(DOCS)/try/bin/pip install --quiet $$file \
	  && (cd $(DOCS)/try && bin/python -c "import lightning_dataselect as d; print(d.__version__, len(d.list_methods()))") \
	  || exit 1; done
	rm -rf $(DOCS)/try

# One stamp for each set of extras, written last, so that an interrupted set-up starts again.
$(VENV)/.report $(VENV)/.test $(VENV)/.notebooks $(VENV)/.libraries: $(VENV)/.%: pyproject.toml | $(VENV)/.created
	@echo "Installing the package and its '$*' extra into $(VENV); this is done once."
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(OLDEST)/.oldest: pyproject.toml .ci/oldest.txt | $(OLDEST)/.created
	@echo "Installing the oldest releases that are supported into $(OLDEST); this is done once."
	$(OLDEST)/bin/python -m pip install --quiet --constraint .ci/oldest.txt --editable '.[test]'
	@touch $@

# A dependency group needs pip 25.1.
$(DOCS)/.docs $(DOCS)/.dist: $(DOCS)/.%: pyproject.toml | $(DOCS)/.created
	$(DOCS)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(DOCS)/bin/python -m pip install --quiet --group $*
	@touch $@

$(VENV)/.created $(DOCS)/.created: PYTHONS = python3.12 python3.11 python3.13 python3.10 python3 python
$(OLDEST)/.created: PYTHONS = python3.10 python3.11 python3.12 python3.13 python3 python
# A candidate must run: pyenv leaves a python3.10 that only says where it would be found.
%/.created:
	@python=; for c in $${PYTHON:-} $(PYTHONS); do \
	  if "$$c" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; \
	  then python=$$c; break; fi; done; \
	if [ -z "$$python" ]; then echo "No Python 3.10 or newer with its venv module was found" \
	  "(Debian: apt install python3-venv); name one: make PYTHON=/path/to/python" >&2; exit 1; fi; \
	"$$python" -m venv $(@D)
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(LIBRARIES) $(DOCS) site dist .pytest_cache .ruff_cache .mypy_cache
