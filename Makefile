# make train   set everything up and pre-train a tiny model on the default corpus
# make test    set everything up and run the tests
#
# Needs Python 3.11 or newer, with its venv module, and make. Everything goes into .venv/.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --quiet --disable-pip-version-check
ARGS ?=

.PHONY: help train test test-all test-parity lint docs wheel-test clean

help:
	@sed -n '1,4s/^# \{0,1\}//p' Makefile

train: $(VENV)/.run
	$(RUN) train.py --config=configs/tiny.py $(ARGS)

test: $(VENV)/.test
	$(RUN) -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

test-all: $(VENV)/.test
	$(RUN) -m pytest $(ARGS)

# Live comparisons with Hugging Face's transformers, which the other tests do without.
test-parity: $(VENV)/.parity
	$(RUN) -m pytest tests/data/test_tokenization_bert.py tests/test_parity.py $(ARGS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(RUN) -m mypy

# The documentation site, into docs/_build/; warnings are errors.
docs: $(VENV)/.docs
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

# The built package, installed where nothing else is: the program, and the README's training.
wheel-test: $(VENV)/.run
	rm -rf build/wheel && mkdir -p build/wheel
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	build/wheel/venv/bin/pip --quiet --disable-pip-version-check install -c requirements.txt build/wheel/*.whl
	cd build/wheel && venv/bin/electra-jax --help >/dev/null && venv/bin/electra-jax --version
	cd build/wheel && ../../$(RUN) -c "import re; print(re.search('(?s)\`\`\`python\n(.*?)\`\`\`', open('../../README.md').read())[1])" > example.py
	cd build/wheel && venv/bin/python example.py

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; PYTHON=/path/to/python names one" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing the packages of requirements.txt into $(VENV)/ ..."
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.test: requirements-test.txt $(VENV)/.run
	$(PIP) install -r requirements-test.txt
	@touch $@

$(VENV)/.docs: requirements-docs.txt $(VENV)/.run
	$(PIP) install -r requirements-docs.txt
	@touch $@

$(VENV)/.parity: requirements-parity.txt $(VENV)/.test
	$(PIP) install -r requirements-parity.txt
	@touch $@
