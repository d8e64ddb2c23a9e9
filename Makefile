# The stage graph. Every arrow is a file: open it, replace it, or bring your own.
#
#   make all        set up, then source -> trained, merged, evaluated model
#   make test       set up, then the tests
#   make help       everything else; the pipelines of papers and documents stand in pipelines.mk
#
# Variables: SOURCES="a b"  LLM=offline|openai|claude  MODEL=tiny|DIR|NAME  RUN=name  WORKERS=2  RENDER=static|check
# and, for what has no variable, PREPARE_OPTIONS LLM_OPTIONS FILTER_OPTIONS SPLIT_OPTIONS TRAIN_OPTIONS EVAL_OPTIONS.

PYTHON ?= python3
VENV ?= .venv

# The embedded source: no key, no hub. `all` is every enabled one of sources.yaml.
SOURCES ?= manim_package
LLM ?= offline
MODEL ?= tiny
RUN ?= default
WORKERS ?= 2
MIN_QUALITY ?= 0.8
# How far programs are run: static import check sampled last full. Not at all where Manim is not installed.
RENDER ?= $(if $(wildcard $(VENV)/lib/python3*/site-packages/manim/__init__.py),check,static)
RENDERING = $(if $(filter-out static,$(RENDER)),--render $(RENDER) --render-cache .cache/render)
RATIOS ?= 85/15
# The tiny base has seen the same rows already: more than one pass of its adapter makes it recite them.
TRAIN_OPTIONS ?= --on-long reject$(if $(filter tiny,$(MODEL)), --epochs 1)
# RESUME=1 goes on from the newest checkpoint; it is no option that would make a finished training run again.
RESUMING = $(if $(RESUME),--resume)
EVAL_LIMIT ?= 32
EVAL_OPTIONS ?= --max-new-tokens 512

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
OUT := runs/$(RUN)
EVALUATION := $(OUT)/evaluation
MAKE_DIR := .make

# Two cores are enough for everything here; spinning threads would only take them from each other.
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

SCRIPTS := prepare_data.py prepare_data_with_llm.py filter_quality.py split_data.py train.py merge_export.py evaluate_model.py report.py
OLD_SCRIPTS := prepare_data_enhanced.py paperExtractor.py sdg.py trim_jsonl.py finetune_project
TYPED := $(SCRIPTS) $(OLD_SCRIPTS) schema stages extractors docs/_generate.py examples/make_papers.py

# A stage that ends with "done, but incomplete" (exit code 3) leaves its file; removing it here makes the next make
# run the stage again instead of going on with less. Answers that were paid for are in the cache.
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all setup render-setup scale-setup data llm filter split train merge export evaluate report card status summary audit test check format docs bench lock clean help FORCE
.DEFAULT_GOAL := help

all: $(OUT)/report.html ## the whole pipeline, on the embedded source and model unless told otherwise
	@$(MAKE) --no-print-directory summary

data: data_formatted/ledger.json ## sources -> data_formatted/{train,test}.json
	@echo "make $@: up to date: $^"
llm: data_enhanced/train.json data_enhanced/test.json ## rewrite missing descriptions -> data_enhanced/
	@echo "make $@: up to date: $^"
filter: data_filtered/train.json data_filtered/test.json ## keep what is good enough -> data_filtered/
	@echo "make $@: up to date: $^"
split: data_split/ledger.json ## data_filtered/train.json -> data_split/{train,valid}.jsonl
	@echo "make $@: up to date: $^"
train: $(OUT)/ledger.json ## LoRA adapter -> runs/RUN/adapter
	@echo "make $@: up to date: $^"
merge: $(OUT)/merged/ledger.json ## adapter + base -> runs/RUN/merged
	@echo "make $@: up to date: $^"
export: $(OUT)/gguf/ledger.json ## the merged model as a GGUF file with a Modelfile -> runs/RUN/gguf
	@echo "make $@: up to date: $^"
evaluate: $(EVALUATION)/scores.json ## held-out rows -> runs/RUN/evaluation
	@echo "make $@: up to date: $^"
report: $(READY) ## one page about what there is of the run -> runs/RUN/report.html
	$(PY) report.py report --run $(OUT)
card: data_split/ledger.json data_filtered/test.json ## the data with a card about it, for a hub -> data_card
	$(PY) report.py card --run $(OUT) --output data_card
status: $(READY) ## the state of every file, and what to run next
	@$(PY) report.py status --run $(OUT)

# --- the environment -------------------------------------------------------------------------------------------------
setup: $(READY) ## create the environment, pinned by requirements.lock

# torch goes first and by itself: a looser requirement of another package would pull in gigabytes of CUDA libraries.
# For a build of your own choice: make setup TORCH="torch==2.13.0 --index-url URL-OF-A-TORCH-INDEX"
TORCH ?= $(shell grep '^torch==' requirements.lock)
$(READY): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not here; install Python 3.11 or newer, or say PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old, Linemill needs 3.11 or newer; say PYTHON=..." >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) $(TORCH)
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -r requirements.lock
	@touch $@

render-setup: $(READY) ## add Manim, so that programs can be run and judged by what happens
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-render.lock || { echo "make: Manim did not build; it takes libcairo2-dev libpango1.0-dev gcc pkg-config (Debian's names)" >&2; exit 1; }

scale-setup: $(READY) ## add Ray, and what reads and writes s3:// and gs://, for more than one machine
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-scale.lock

# --- options are inputs too: a file that changes only when they do ----------------------------------------------------
# $(call options,NAME,TEXT)
define options
$(MAKE_DIR)/$(1).options: FORCE
	@mkdir -p $$(@D)
	@echo '$(subst ','\'',$(2))' | cmp -s - $$@ || echo '$(subst ','\'',$(2))' > $$@
endef
$(eval $(call options,prepare,$(SOURCES) $(PREPARE_OPTIONS)))
$(eval $(call options,llm,$(LLM) $(LLM_OPTIONS)))
$(eval $(call options,filter,$(MIN_QUALITY) $(RENDER) $(FILTER_OPTIONS)))
$(eval $(call options,split,$(RATIOS) $(SPLIT_OPTIONS)))
$(eval $(call options,train-$(RUN),$(MODEL) $(TRAIN_OPTIONS)))
$(eval $(call options,evaluate-$(RUN),$(EVAL_LIMIT) $(RENDER) $(EVAL_OPTIONS)))

# A recipe that ran leaves a mark, so that `make all` can say truthfully whether there was anything to do.
RAN = @mkdir -p $(MAKE_DIR) && touch $(MAKE_DIR)/ran

# --- the stages ------------------------------------------------------------------------------------------------------
data_formatted/ledger.json: sources.yaml $(MAKE_DIR)/prepare.options | $(READY)
	$(PY) prepare_data.py prepare --sources $(SOURCES) $(PREPARE_OPTIONS)
	$(RAN)

# Written as one set with the ledger; a file that was edited by hand is newer than it and makes what follows run again.
data_formatted/train.json data_formatted/test.json: data_formatted/ledger.json
	@test -e $@ || { echo "make: $@ is gone though its ledger is there; remove data_formatted/ledger.json to prepare it again" >&2; exit 1; }

data_enhanced/%.json: data_formatted/%.json $(MAKE_DIR)/llm.options | $(READY)
	$(PY) prepare_data_with_llm.py generate-descriptions --input $< --output $@ $(if $(filter auto,$(LLM)),,--llm $(LLM)) --workers $(WORKERS) $(LLM_OPTIONS)
	$(RAN)

data_filtered/%.json: data_enhanced/%.json $(MAKE_DIR)/filter.options | $(READY)
	$(PY) filter_quality.py --input $< --output $@ --min-quality $(MIN_QUALITY) --workers $(WORKERS) $(RENDERING) $(FILTER_OPTIONS)
	$(RAN)

data_split/ledger.json: data_filtered/train.json $(MAKE_DIR)/split.options | $(READY)
	$(PY) split_data.py --input $< --output-dir data_split --ratios $(RATIOS) $(SPLIT_OPTIONS)
	$(RAN)

data_split/train.jsonl data_split/valid.jsonl: data_split/ledger.json
	@test -e $@ || { echo "make: $@ is gone though its ledger is there; remove data_split/ledger.json to split again" >&2; exit 1; }

$(OUT)/ledger.json: data_split/train.jsonl data_split/valid.jsonl $(MAKE_DIR)/train-$(RUN).options | $(READY)
	$(PY) train.py --data data_split/train.jsonl --eval-data data_split/valid.jsonl --model $(MODEL) --output $(OUT) $(TRAIN_OPTIONS) $(RESUMING)
	$(RAN)

$(OUT)/merged/ledger.json: $(OUT)/ledger.json | $(READY)
	$(PY) merge_export.py merge --adapter $(OUT)/adapter --output $(OUT)/merged
	$(RAN)

# Nothing is scored before the held-out rows are proved to stand on one side only.
$(EVALUATION)/scores.json: $(OUT)/merged/ledger.json data_filtered/test.json $(MAKE_DIR)/evaluate-$(RUN).options | $(READY)
	$(PY) split_data.py audit data_filtered/train.json data_filtered/test.json
	$(PY) evaluate_model.py loss --model $(OUT)/merged --data data_filtered/test.json --output $(EVALUATION)
	$(PY) evaluate_model.py generate --model $(OUT)/merged --data data_filtered/test.json --output $(EVALUATION) --limit $(EVAL_LIMIT) $(EVAL_OPTIONS)
	$(PY) filter_quality.py --input $(EVALUATION)/generated.jsonl --output $(EVALUATION)/tagged.jsonl --tag-only $(if $(RENDERING),$(RENDERING) --frames $(EVALUATION)/frames)
	$(PY) evaluate_model.py score --data $(EVALUATION)/tagged.jsonl --output $(EVALUATION)
	$(PY) evaluate_model.py page $(EVALUATION) --metrics $(OUT)/metrics.jsonl $(if $(RENDERING),--frames $(EVALUATION)/frames)
	$(RAN)

# All that it shows is read again; what it needs to be there at all is older than the scores.
$(OUT)/report.html: $(EVALUATION)/scores.json data_split/ledger.json | $(READY)
	$(PY) report.py report --run $(OUT)
	$(RAN)

# The model as one file for llama.cpp and Ollama; QUANT="f16 q8_0" for several, q4_k_m needs linemill[llama].
QUANT ?= q8_0
$(eval $(call options,export-$(RUN),$(QUANT)))
$(OUT)/gguf/ledger.json: $(OUT)/merged/ledger.json $(EVALUATION)/scores.json $(MAKE_DIR)/export-$(RUN).options | $(READY)
	$(PY) merge_export.py export --model $(OUT)/merged --format gguf $(addprefix --quant ,$(QUANT)) --output $(OUT)/gguf --scores $(EVALUATION)/scores.json
	$(RAN)

include pipelines.mk deploy/deploy.mk

summary:
	@if [ -e $(MAKE_DIR)/ran ]; then rm $(MAKE_DIR)/ran; echo "make all: done."; \
	else echo "make all: nothing to do, everything is up to date."; fi
	@echo "  records       data_formatted/  data_enhanced/  data_filtered/  data_split/   (rejects beside each file)"
	@echo "  adapter       $(OUT)/adapter"
	@echo "  merged model  $(OUT)/merged"
	@echo "  report        $(OUT)/report.html   all of it as one page: open it in a browser"
	@echo "  scores        $(EVALUATION)/index.html   $(EVALUATION)/scores.json   generations in $(EVALUATION)/tagged.jsonl"
	@echo "  try           $(PY) evaluate_model.py chat --model $(OUT)/merged;  make export;  make status;  make help"

# --- looking after it ------------------------------------------------------------------------------------------------
audit: | $(READY) ## count every ledger again, from the files themselves
	$(PY) -m schema audit $(wildcard data_formatted data_enhanced data_filtered data_split data_papers data_documents data_manim_docs runs)

# pytest prints one line for each group of tests; two processes, because two cores are what there is.
JOBS ?= 2
test: $(READY) $(MAKE_DIR)/wheel ## the tests
	LINEMILL_MANIM_WHEEL="$$(cat $(MAKE_DIR)/wheel)" $(PY) -m pytest -n $(JOBS) --dist loadfile $(TEST_OPTIONS)

# The real wheel, for the one test that counts its blocks; without a package index that test says so and is skipped.
$(MAKE_DIR)/wheel: requirements.lock | $(READY)
	@mkdir -p $(MAKE_DIR)/wheels
	@$(PY) -m pip download --quiet --disable-pip-version-check --no-deps --dest $(MAKE_DIR)/wheels manim==0.22.0 2>/dev/null || true
	@ls $(CURDIR)/$(MAKE_DIR)/wheels/manim-0.22.0*.whl > $@ 2>/dev/null || { echo > $@; echo "make: the manim wheel can not be downloaded; its test will be skipped" >&2; }

check: $(READY) ## format, lint, types, import rules, generated docs
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy $(TYPED)
	$(PY) -m pytest tests/test_architecture.py
	$(PY) docs/_generate.py --check

format: $(READY) ## put the code into its one format
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: $(READY) ## write docs/commands.md from --help
	$(PY) docs/_generate.py

# datasketch, pandas and pyflakes are no packages of ours; a Python that has them is named here: make bench PEER_PYTHON=...
PEER_PYTHON ?= $(PY)
bench: $(READY) ## measure, beside peers (see bench/README.md)
	$(PY) bench/copy_records.py
	$(PY) bench/dedupe.py --peer-python $(PEER_PYTHON)
	$(PY) bench/static_checks.py --peer-python $(PEER_PYTHON)
	$(PY) bench/llm_calls.py
	$(PY) bench/shards.py --engines local $(shell $(PY) -c 'import ray' 2>/dev/null && echo ray)
	$(if $(RENDERING),$(PY) bench/render_gate.py,@echo "make bench: without Manim (make render-setup) the render gate is left out")

lock: ## write requirements.lock from the environment as it is
	$(PY) -m pip freeze --exclude pip | sed -e 's/+cpu$$//' | grep -vxFf requirements-render.lock -f requirements-scale.lock -f requirements-site.lock > requirements.lock

PREPARED := train.json test.json rejects.jsonl dataset_stats.json deduplication_report.json removed_duplicates.json ledger.json
SPLIT := train.jsonl valid.jsonl test.jsonl rejects.jsonl ledger.json dataset_info.json \
	$(addsuffix .yaml,trl llamafactory axolotl unsloth mlx_lora)
FILTERED := $(foreach side,train test,$(side).json $(side).rejects.jsonl $(side).ledger.json)
clean: ## remove what can be made again for free; caches, data_enhanced and runs stay, so do files of your own
	rm -f $(addprefix data_formatted/,$(PREPARED)) $(addprefix data_split/,$(SPLIT)) $(addprefix data_filtered/,$(FILTERED))
	rm -rf $(MAKE_DIR) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
