# Every target sets up what it needs: system packages, .venv, tpm2-pytss. `make help` lists them.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PY := .venv/bin/python
READY := .venv/.ready
PYTEST_ARGS ?= -n auto --dist worksteal
FUZZ_EXAMPLES ?= 5000
JSON ?=
KEYS ?= tpm
PROTOCOL ?= est
FULL ?=

# An environment whose interpreter is gone counts as none.
$(if $(wildcard $(PY)),,$(shell rm -f $(READY)))

.PHONY: help setup demo test lint format interop peers bench proof-firstboot proof-life proof-cmp proof-cmc proof-pkcs11 proof-scep proof-acme docs fuzz coverage clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml scripts/setup.sh scripts/setup-packages.sh
	@scripts/setup.sh

setup: $(READY) ## Install what is missing (every other target does it, too)

demo: $(READY) ## First boot, mutual TLS and renewal (JSON=1: one JSON object; KEYS=pkcs11: a token; PROTOCOL=cmp, cmc, scep or acme)
	@$(PY) -m demo --keys $(KEYS) --protocol $(PROTOCOL) $(if $(filter 1,$(JSON)),--json)

test: $(READY) ## Run the tests that need no foreign peer
	@$(PY) -m pytest -m "not interop and not machine" $(PYTEST_ARGS)

lint: $(READY) ## Check style, types and import floors
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

format: $(READY) ## Put the sources into the one format
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

peers: ## Install the independent EST peers outside the repository
	@scripts/peers.sh

.PHONY: peers-dogtag
peers-dogtag: ## Install Dogtag CA, a judge of CMC that CI does without (as root)
	@scripts/peers-dogtag.sh

interop: $(READY) peers ## Run the tests against independent peers
	@$(PY) -m pytest -m interop

bench: $(READY) ## Print what a first boot costs: TPM commands, round trips, milliseconds
	@$(PY) -m bench

proof-pkcs11: $(READY) peers ## Prove that tokens are equals of the TPM: every figure, then one JSON line
	@$(PY) -m proofs.pkcs11

proof-firstboot: $(READY) peers ## Prove the first boot: every figure, then one JSON line
	@$(PY) -m proofs.firstboot

proof-cmp: $(READY) peers ## Prove CMP and BRSKI-AE (FULL=1: a million mutants): every figure, then one JSON line
	@FULL=$(FULL) $(PY) -m proofs.cmp

proof-acme: $(READY) peers ## Prove ACME and the TPM's word: every figure, then one JSON line
	@$(PY) -m proofs.acme

proof-cmc: $(READY) peers $(if $(filter 1,$(FULL)),peers-dogtag) ## Prove CMC and revocation by command (FULL=1: by Dogtag, too): every figure, then one JSON line
	@FULL=$(FULL) $(PY) -m proofs.cmc

proof-scep: $(READY) peers ## Prove SCEP and the ladder down to it: every figure, then one JSON line
	@$(PY) -m proofs.scep

.PHONY: proof-discovery
proof-discovery: $(READY) ## Prove that a device finds its owner: every figure, then one JSON line (needs root: network namespaces)
	@scripts/setup-packages.sh iproute2 mmdebstrap systemd-container avahi-daemon avahi-utils dbus dnsmasq-base tinyproxy microsocks
	@$(PY) -m proofs.discovery

.PHONY: proof-factory
proof-factory: $(READY) peers ## Prove the factory line (FULL=1: a thousand units in each campaign): every figure, then one JSON line
	@FULL=$(FULL) $(PY) -m proofs.factory

machine: $(READY) ## Build the throw-away machine in which a real systemd runs (outside the repository)
	@scripts/machine.sh

.PHONY: machine proof-daemon
proof-daemon: $(READY) ## Prove the service under a real systemd (FULL=1: a minute where 20 s are the default)
	@$(PY) -m proofs.daemon

proof-life: $(READY) ## Prove ten unattended years: every figure, then one JSON line (FULL=1: all seeds)
	@FULL=$(FULL) $(PY) -m proofs.life

.PHONY: layer-parse
layer-parse: ## Parse the Yocto layer by the bitbake of given checkouts (SERIES=wrynose YOCTO=directory of checkouts)
	@SERIES=$(SERIES) YOCTO=$(YOCTO) scripts/layer-parse.sh

.PHONY: deb
deb: $(READY) ## Build the Debian packages in roots of Debian 12 and 13, into build/deb (root)
	@scripts/deb.sh

.PHONY: machine-test proof-machine
machine-test: $(READY) ## Boot a virtual gateway with a TPM for the first time, and make its life hard (root; FULL=1: all of it)
	@FULL=$(FULL) $(PY) -m pytest -m machine tests/machine

proof-machine: $(READY) ## Prove it on a machine of its own: every figure, then one JSON line (root; FULL=1: all of it)
	@FULL=$(FULL) $(PY) -m proofs.machine_boot

docs: $(READY) ## Write the documents that are generated from the code
	@$(PY) -c 'from holdfast.life.diagram import document; print(document(), end="")' > docs/life.md
	@$(PY) -m holdfast.cli.manual docs
	@$(PY) -m years.document
	@$(PY) -m years.lives_page

fuzz: $(READY) ## Run the property tests with FUZZ_EXAMPLES examples each
	@FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PY) -m pytest -m "hypothesis and not interop" --hypothesis-profile=fuzz --timeout=0

coverage: $(READY) ## Run the tests and show the lines that none of them reached
	@.venv/bin/coverage erase
	@.venv/bin/coverage run -m pytest -q -m "not interop and not machine"
	@.venv/bin/coverage combine --quiet
	@.venv/bin/coverage report

clean: ## Remove everything that make made here (cached wheels and peers stay)
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* coverage.json
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
