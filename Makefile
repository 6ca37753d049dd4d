# Commands for development. Each target can be repeated; only the first run installs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PARTS := setup.cfg pyproject.toml
# Folders of tests/clients, each with an environment of its own; the second list is for make clients.
CLIENTS := documented evaluation agents vercel
HEAVY_CLIENTS := generators generators-node large

.PHONY: run test quick lint clients image-digests image-requirements clean help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 20

run: $(VENV)/.installed-run ## install, fetch two small models and serve them on http://127.0.0.1:8001
	@$(BIN)/python -m mes.cli.quickstart

test: $(VENV)/.installed-test $(CLIENTS:%=$(VENV)/.installed-clients-%) ## install and run all tests, with real gunicorn and a real model
	@$(fetch_models)
	@$(BIN)/python -m pytest $(ARGS)

clients: $(VENV)/.installed-test $(patsubst %,$(VENV)/.installed-clients-%,$(CLIENTS) $(HEAVY_CLIENTS)) ## install and test also the clients that are too large for make test
	@$(fetch_models)
	@$(BIN)/python -m pytest -m "not slow" tests/clients $(ARGS)

quick: $(VENV)/.installed-quick ## run the tests that need no model and no service (one to two minutes)
	@$(BIN)/python -m pytest $(addprefix --ignore=tests/,$(NOT_QUICK)) $(ARGS)

lint: $(VENV)/.installed-test ## run ruff, codespell, mypy and hadolint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/mypy && $(BIN)/hadolint Dockerfile

image-digests: ## write the digests of the images' tags into Dockerfile and docker-compose.yml; needs docker
	@$(PYTHON) deploy/image_digests.py Dockerfile docker-compose.yml

image-requirements: ## write the newest libraries for the image, with hashes, into deploy/requirements*.txt
	@$(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/python -m pip install --quiet 'uv>=0.13,<0.14'
	@$(call compile,setup.cfg,requirements.txt)
	@$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' | \
	  $(call compile,-,requirements-build.txt)

clean: ## remove everything that the other targets created
	rm -rf .venv .venv-newer logs models build *.egg-info

$(VENV)/.installed-run: $(PARTS)
	@$(call install,embedded,20)

$(VENV)/.installed-test: $(PARTS)
	@$(call install,embedded$(comma)test$(comma)lint,60)

$(VENV)/.installed-clients-%: tests/clients/%/requirements.txt | $(VENV)/.installed-test
	@echo "mes: installing clients for the tests into $(VENV)/clients-$*"; began=$$(date +%s); \
	$(BIN)/python -m venv $(VENV)/clients-$* && \
	$(VENV)/clients-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  --requirement $< && touch $@ && echo "mes: installed after $$(( $$(date +%s) - began )) s"

$(VENV)/.installed-clients-%: tests/clients/%/package-lock.json | $(VENV)/.installed-test
	@command -v npm >/dev/null || { echo "mes: there is no npm; the tests of $* are skipped"; exit 0; }; \
	echo "mes: installing clients for the tests into $(VENV)/clients-$*" && \
	mkdir -p $(VENV)/clients-$* && cp tests/clients/$*/package*.json $(VENV)/clients-$* && \
	npm ci --silent --no-audit --no-fund --prefix $(VENV)/clients-$* && touch $@

$(VENV)/.installed-quick: $(PARTS)
	@$(call install,test,40)

# For the Python of the Dockerfile, on every platform.
compile = $(VENV)/uv/bin/uv pip compile $(1) --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make image-requirements' --output-file deploy/$(2)

comma := ,
NOT_QUICK := cli clients deploy embedded faults integration test_harness.py test_serve.py

fetch_models = echo "mes: fetching two models for the tests (177 MB, some seconds the first time)" && \
  $(BIN)/python -m mes.embedded pull smollm2:135m >/dev/null && \
  $(BIN)/python -m mes.embedded pull all-minilm >/dev/null

# The distribution was named `mes` up to 0.1; both it and `openbench-mes` install a command `mes`.
forget_old_name = $(BIN)/python -m pip uninstall --quiet --yes mes && rm -rf mes.egg-info

define install
$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
  { echo "mes: needs Python 3.11 or newer with venv; name one with: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12"; exit 1; }; \
echo "mes: installing into $(VENV) (about $(2) s the first time)"; began=$$(date +%s); \
{ test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && \
{ ! test -e mes.egg-info || { $(call forget_old_name); }; } && \
$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(1)]' && \
touch $@ && echo "mes: installed after $$(( $$(date +%s) - began )) s"
endef
