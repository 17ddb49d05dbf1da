# `make demo` and `make test` need nothing but Python 3.10 or newer, its venv module, and PyPI.
VENV := .venv
LIBRARIES := .venv-libraries
BIN := $(VENV)/bin
OUT ?= demo-out
SEEDS ?= 3
BENCH_OUT ?= bench-out
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-libraries test-notebooks notebooks lint bench-quick clean

demo: $(VENV)/.report
	$(BIN)/lightning-dataselect compare --seeds $(SEEDS) --out $(OUT)

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not libraries'

# Other packages' modules, in an environment of their own: they bring some gigabytes along.
test-libraries:
	$(MAKE) VENV=$(LIBRARIES) $(LIBRARIES)/.libraries
	$(LIBRARIES)/bin/python -m pytest tests/libraries

# Runs every notebook from a clean kernel and leaves the files alone; `make notebooks` writes what came out into them.
test-notebooks: $(VENV)/.notebooks
	$(BIN)/jupyter execute --timeout=180 notebooks/*.ipynb

notebooks: $(VENV)/.notebooks
	$(BIN)/jupyter execute --inplace --timeout=180 --NotebookClient.record_timing=False notebooks/*.ipynb

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy lightning_dataselect

# Every study in its shortest form, which needs no data: that they run, not what they show.
bench-quick: $(VENV)/.test
	$(BIN)/python -m benchmarks.images --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.text --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.translation --quick --out $(BENCH_OUT)
	$(BIN)/python -m benchmarks.language_model --quick --out $(BENCH_OUT)

# One stamp for each set of extras, written last, so that an interrupted set-up starts again.
$(VENV)/.report $(VENV)/.test $(VENV)/.notebooks $(VENV)/.libraries: $(VENV)/.%: pyproject.toml | $(VENV)/.created
	@echo "Installing the package and its '$*' extra into $(VENV); this is done once."
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/.created:
	@python=; for c in $${PYTHON:-} python3.12 python3.11 python3.13 python3.10 python3 python; do \
	  if "$$c" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; \
	  then python=$$c; break; fi; done; \
	if [ -z "$$python" ]; then echo "No Python 3.10 or newer with its venv module was found" \
	  "(Debian: apt install python3-venv); name one: make PYTHON=/path/to/python" >&2; exit 1; fi; \
	"$$python" -m venv $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) $(LIBRARIES) .pytest_cache .ruff_cache .mypy_cache
