# Everything runs in .venv, which is made on first use and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python -m

.PHONY: demo test lint types check report check-report screenshots other-pythons clean

demo: $(VENV)/installed
	$(VENV)/bin/ns-prune demo

test: $(VENV)/installed
	$(RUN) pytest

lint: $(VENV)/installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(VENV)/installed
	$(RUN) pyright --pythonpath $(VENV)/bin/python

check: test lint types check-report

# Tables of the README and of docs/results, and report/index.html, from the committed records.
TABLES := README.md $(wildcard docs/results/*.md)

report: $(VENV)/installed
	$(VENV)/bin/ns-prune report benchmarks/results --output report --readme $(TABLES)

check-report: $(VENV)/installed
	$(VENV)/bin/ns-prune report benchmarks/results --readme $(TABLES) --check

# The pages that are made from the sources.
.PHONY: docs
docs: $(VENV)/installed
	$(VENV)/bin/python docs/make_options.py

# The pictures of the panel in its page; needs Chromium.
screenshots: $(VENV)/installed
	$(VENV)/bin/python tests/viewer/take_screenshots.py

# The parts that need no Nerfstudio, on the other Python versions that are claimed.
other-pythons:
	.ci/other_pythons 3.10 3.12

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
