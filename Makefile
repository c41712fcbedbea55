# headwater: every task of the project by one name. `make` lists them; CI calls these and nothing else.
#
# Each target makes .venv and installs what it needs, once (pyproject.toml or constraints.txt changed: again).
# torch: `pip install torch==2.13.0` gives a CPU build where the machine provides one. Elsewhere on x86 Linux it brings
# CUDA packages of several GB; to avoid them, create .venv yourself, install the CPU build of torch 2.13.0 in it as
# torch's own installation page says, then run make: what is there is kept.
#
# What the demo runs on is installed by the hashes of requirements-demo.txt, all but torch and the CUDA packages that it
# may bring: which file torch==2.13.0 is depends on where it comes from. docs/security.md says who is trusted with what.

# Tests and benchmarks start hundreds of processes: each would compile all of headwater again.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt requirements-demo.txt $(wildcard compression/*.[ch] device/control/*.[ch] simulations/fleet/*.[ch])
SUPPLY := build/supply
FOLDERS := protos compression device server simulations
PROTOC := $(BIN)/python -m grpc_tools.protoc --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc
PYTEST := $(BIN)/python -m pytest

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV)/.dev ## make .venv with everything for development

.PHONY: demo
demo: $(VENV)/.demo ## a server and four devices on this machine, under 2 minutes; report in out/demo
	$(BIN)/headwater demo

.PHONY: test
test: $(VENV)/.dev ## the tests, two at a time; ARGS="-k frame" chooses some
	$(PYTEST) --numprocesses 2 --dist worksteal -m "not slow and not gpu and not network" $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.dev ## the tests that take minutes
	$(PYTEST) -m slow $(ARGS)

.PHONY: check
check: lint types protos-check ## lint, formatting, types, and whether the generated modules are current

.PHONY: lint
lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: format
format: $(VENV)/.dev ## format and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# mypy has to see each folder x as headwater.x, the name that users import: a folder of links gives it that.
.PHONY: types
types: $(VENV)/.dev
	mkdir -p build/types/headwater
	for folder in $(FOLDERS); do ln -sfn "../../../$$folder" "build/types/headwater/$$folder"; done
	$(BIN)/mypy -p headwater

.PHONY: bench
bench: $(VENV)/.peers ## every benchmark, beside its peers; writes out/bench.json; ARGS=--quick for a trial
	$(BIN)/python -m benchmarks --json out/bench.json $(ARGS)

.PHONY: soak
soak: $(VENV)/.dev ## 500 streams through every kind of fault for 30 minutes, every frame accounted for; ARGS="--minutes 5"
	$(BIN)/python -m benchmarks.soak --minutes 30 --json out/bench.json $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.fuzz ## hostile bytes for five minutes, guided by coverage; ARGS="--minutes 60 message" for more of one
	$(BIN)/python -m tests.fuzz.run --json out/bench.json $(ARGS)

.PHONY: audit
audit: $(BIN)/python $(SUPPLY)/.ready ## look up every pinned package in the database of known vulnerabilities
	$(BIN)/python -m tests.supply.audit $(SUPPLY)/bin/pip-audit constraints.txt out/audit.json

.PHONY: sbom
sbom: $(SUPPLY)/.ready ## write out/sbom.json, CycloneDX: what the demo and a device with learning are made of
	mkdir -p out
	{ cat requirements-demo.txt; grep '^torch==' constraints.txt; } > $(SUPPLY)/sbom.txt
	$(SUPPLY)/bin/cyclonedx-py requirements $(SUPPLY)/sbom.txt --pyproject pyproject.toml --mc-type application \
	    --output-reproducible --output-format JSON --output-file out/sbom.json

.PHONY: lock
lock: $(SUPPLY)/.ready ## write requirements-demo.txt again from pyproject.toml and constraints.txt
	$(SUPPLY)/bin/uv pip compile pyproject.toml --extra demo --extra federated --constraint constraints.txt \
	    --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --output-file $(SUPPLY)/lock.txt
	{ echo "# Written by make lock. torch, and what its CUDA builds bring, is not here: see the Makefile's head."; \
	  awk '/^[a-zA-Z]/ { keep = $$0 !~ /^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } keep' $(SUPPLY)/lock.txt; } \
	    > requirements-demo.txt

.PHONY: aarch64
aarch64: $(VENV)/.dev ## show on an emulated 64-bit ARM that headwater builds, codes and answers there; as root, ten minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" tests/aarch64/run.sh

.PHONY: train-solar
train-solar: $(VENV)/.dev ## train the bundle of the demo again, about an hour on two cores; writes out/solar.zip
	$(BIN)/headwater train solar --out out/solar.zip $(ARGS)

.PHONY: protos
protos: build/protos ## generate the modules in protos/ again
	cp build/protos/headwater/protos/* protos/

.PHONY: protos-check
protos-check: build/protos
	for file in build/protos/headwater/protos/*; do \
	    cmp "$$file" "protos/$$(basename "$$file")" || { echo "protos/ is not what its .proto files say: run make protos"; exit 1; }; \
	done

.PHONY: build/protos
build/protos: $(VENV)/.dev
	rm -rf $@ && mkdir -p $@
	$(PROTOC) -Iheadwater/protos=protos \
	    --python_out=$@ --pyi_out=$@ --grpc_python_out=$@ --mypy_grpc_out=quiet:$@ \
	    $(patsubst protos/%,headwater/protos/%,$(wildcard protos/*.proto))

.PHONY: wheel
wheel: $(VENV)/.dev ## build dist/headwater-*.whl
	rm -rf build/lib* build/bdist* # what an earlier build left would be packed too
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

.PHONY: clean
clean: ## remove what was built, but keep .venv
	rm -rf build dist out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis compression/*.so device/*.so simulations/fleet/*.so
	rm -f $(VENV)/.demo $(VENV)/.dev $(VENV)/.fuzz $(VENV)/.peers

# The environment, in steps: each stamp says which extras have been installed at these pins.

$(BIN)/python:
	python3 -m venv $(VENV)

# By hash; then torch; then headwater, for which nothing may be fetched any more.
$(VENV)/.demo: $(INPUTS) | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement requirements-demo.txt
	$(PIP) torch==2.13.0
	$(PIP) --no-index --no-build-isolation --editable '.[demo,federated]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --no-build-isolation --editable '.[train,federated,simulate,demo,dev]'
	touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	$(PIP) --only-binary :all: atheris==3.0.0 || echo "atheris is not to be had here; make fuzz will say so"
	touch $@

# In an environment of their own: what describes the project's packages is not to be one of them.
$(SUPPLY)/.ready: Makefile
	python3 -m venv $(SUPPLY)
	$(SUPPLY)/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0 uv==0.12.24
	touch $@

# CompressAI pins numpy<2 and torchvision; only its entropy coder is wanted, which needs neither; so
# it is with NNCodec. A peer that cannot be installed is said to be missing in the benchmark's own table.
$(VENV)/.peers: $(VENV)/.dev
	$(PIP) --no-deps compressai==1.2.8 || echo "compressai is not to be had here; its rows will say so"
	$(PIP) --no-deps nncodec==2.1.3 zipnn==0.5.4 || echo "nncodec or zipnn is not to be had here; their rows will say so"
	touch $@
