# Everything runs in .venv, which is made on first use and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python -m
# Two processes with one thread each. Tests of one file share what its fixtures make, and stay together. The slowest are
# named at the end, for the whole suite is to stay within ten minutes.
PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40 --durations-min 4
# The rooms below `nerf`, without those of their tests that need a training.
QUICK := core scenes data raster gaussians neurons occupancy kilonerf engine records report viewer

.PHONY: demo test quick lint types check report check-report screenshots other-pythons clean

demo: $(VENV)/installed
	$(VENV)/bin/ns-prune demo

test: $(VENV)/installed
	$(PYTEST)

# A minute, for whoever works on the lower rooms.
quick: $(VENV)/installed
	$(PYTEST) -m "not (gpu or browser or slow)" --ignore tests/viewer/test_live.py --ignore tests/viewer/test_browser.py \
		$(wildcard $(QUICK:%=tests/%))

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
	cp report/plots/frontier-all-1.svg docs/results/everything.svg

check-report: $(VENV)/installed
	$(VENV)/bin/ns-prune report benchmarks/results --readme $(TABLES) --check

# The pages that are made from the sources.
.PHONY: docs
docs: $(VENV)/installed
	$(VENV)/bin/python docs/make_options.py

# The pictures of the panel in its page; needs Chromium.
screenshots: $(VENV)/installed
	PYTHONPATH=tests $(VENV)/bin/python tests/viewer/take_screenshots.py

# The parts that need no Nerfstudio, on the other Python versions that are claimed.
other-pythons:
	.ci/other_pythons 3.10 3.12

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
