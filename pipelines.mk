# Three more pipelines out of the same stages, each with folders of its own, by the same rules as `make all`:
# every arrow is a file, and what is up to date is left alone.
#
#   make papers      papers -> explained in three voices -> cut to 2,048 tokens -> an adapter for each voice
#   make documents   documents -> questions and answers -> an adapter
#   make manim-docs  Manim's documentation and a set of the hub -> one short instruction each -> an adapter
#
# What is read: INPUT=file-or-folder (PDF files for papers, any documents for documents), or SOURCES="names" of
# sources.yaml; without both, small inputs that stand in examples/. All other variables are those of `make all`.

.PHONY: papers documents manim-docs

# The value of a variable that the user has set, else the default of this pipeline: $(call given,NAME,DEFAULT)
given = $(if $(filter file undefined,$(origin $(1))),$(2),$($(1)))
# The longest row in tokens, of what is trained here.
MAX_TOKENS ?= 2048
ASK = $(if $(filter auto,$(LLM)),,--llm $(LLM))
# The tiny base knows a few dozen rows by heart long before the steps that a whole documentation takes.
FOR_TINY := --epochs 1 --tiny-steps 100
PIPELINE_TRAIN := $(call given,TRAIN_OPTIONS,--max-length $(MAX_TOKENS) --on-long reject $(if $(filter tiny,$(MODEL)),$(FOR_TINY)))
# $(call tell,TARGET,WHAT CAME OUT)
tell = @if [ -e $(MAKE_DIR)/ran ]; then rm $(MAKE_DIR)/ran; echo "make $(1): done: $(2)"; \
	else echo "make $(1): nothing to do, everything is up to date: $(2)"; fi

# --- what is read: $(call read_sources,NAME,OPTIONS OF prepare,WHAT IT READS) -----------------------------------------
# Every record goes to train.json: these pipelines split at the end. The listing of what is read is a file that changes
# only when something there does.
define read_sources
$(MAKE_DIR)/$(1).input: FORCE
	@mkdir -p $$(@D)
	@ls -lLR '$(3)' > $$@.now || { echo "make: $(3) can not be read; INPUT names a file or a folder" >&2; exit 2; }
	@if cmp -s $$@.now $$@; then rm $$@.now; else mv $$@.now $$@; fi
$(call options,$(1)-prepare,$(2) $(PREPARE_OPTIONS))
data_$(1)/formatted/ledger.json: $(MAKE_DIR)/$(1).input $(MAKE_DIR)/$(1)-prepare.options | $(READY)
	$(PY) prepare_data.py prepare $(2) --test-ratio 0 --output-dir $$(@D) $(PREPARE_OPTIONS)
	$(RAN)
data_$(1)/formatted/train.json: data_$(1)/formatted/ledger.json
	@test -e $$@ || { echo "make: $$@ is gone though its ledger is there; remove $$< to prepare it again" >&2; exit 1; }
endef

# A file or folder becomes a source of one line; JSON is YAML. $(call input_file,NAME,TYPE,PATH)
define input_file
$(MAKE_DIR)/$(1).yaml: FORCE
	@mkdir -p $$(@D)
	@echo '{"$(1)": {"type": "$(2)", "path": "$(3)"}}' > $$@.now
	@if cmp -s $$@.now $$@; then rm $$@.now; else mv $$@.now $$@; fi
data_$(1)/formatted/ledger.json: $(MAKE_DIR)/$(1).yaml
endef

# Named sources, else the file or folder. $(call reading,NAME,TYPE,PATH)
define reading
$(if $(call given,SOURCES,),$(call read_sources,$(1),--sources $(SOURCES),sources.yaml),$(call input_file,$(1),$(2),$(3))
$(call read_sources,$(1),--sources-file $(MAKE_DIR)/$(1).yaml,$(3)))
endef

# --- the end of all of them: $(call split_and_train,NAME,RATIOS) --------------------------------------------------------
define split_and_train
$(call options,$(1)-split,$(2) $(SPLIT_OPTIONS))
$(call options,$(1)-train,$(MODEL) $(PIPELINE_TRAIN))
data_$(1)/split/ledger.json: data_$(1)/filtered/train.json $(MAKE_DIR)/$(1)-split.options | $(READY)
	$(PY) split_data.py --input $$< --output-dir $$(@D) --ratios $(2) $(SPLIT_OPTIONS)
	$(RAN)
runs/$(1)/ledger.json: data_$(1)/split/ledger.json $(MAKE_DIR)/$(1)-train.options | $(READY)
	$(PY) train.py --data data_$(1)/split/train.jsonl --eval-data data_$(1)/split/valid.jsonl --model $(MODEL) --output $$(@D) $(PIPELINE_TRAIN) $(RESUMING)
	$(RAN)
endef

# --- papers -----------------------------------------------------------------------------------------------------------
VOICES ?= eli5 intuitive executive
# The tiny model has no tokenizer before it is built; no tokenizer makes more tokens than there are bytes.
TOKENIZER ?= $(if $(filter tiny,$(MODEL)),bytes,$(MODEL))
empty :=
comma := ,
VOICE_NAMES := $(basename $(notdir $(VOICES)))
PAPERS := $(call given,INPUT,data_papers/sample)
PAPERS_SPLIT := $(call given,RATIOS,85/15)

papers: runs/papers/$(lastword $(VOICE_NAMES))/ledger.json ## papers -> an adapter for each voice [INPUT=folder or SOURCES=arxiv_papers]
	$(call tell,$@,$(VOICE_NAMES:%=runs/papers/%/adapter))

data_papers/sample: examples/make_papers.py $(wildcard examples/texts/*.md) | $(READY)
	$(PY) examples/make_papers.py --output $@
	@touch $@

$(eval $(call reading,papers,arxiv,$(PAPERS)))
$(MAKE_DIR)/papers.input: $(filter data_papers/sample,$(PAPERS))
$(eval $(call options,papers-voices,$(LLM) $(VOICES) $(LLM_OPTIONS)))
$(eval $(call options,papers-trim,$(MAX_TOKENS) $(TOKENIZER) $(FILTER_OPTIONS)))
$(eval $(call options,papers-split,$(PAPERS_SPLIT) $(SPLIT_OPTIONS)))
$(eval $(call options,papers-train,$(MODEL) $(PIPELINE_TRAIN)))

data_papers/personas/ledger.json: data_papers/formatted/train.json $(MAKE_DIR)/papers-voices.options | $(READY)
	$(PY) prepare_data_with_llm.py generate-personas --input $< --output $(@D) $(ASK) $(addprefix --persona ,$(VOICES)) $(LLM_OPTIONS)
	$(RAN)
$(VOICE_NAMES:%=data_papers/personas/%.jsonl): data_papers/personas/ledger.json
	@test -e $@ || { echo "make: $@ is gone though its ledger is there; remove $< to make it again" >&2; exit 1; }

$(VOICE_NAMES:%=data_papers/trimmed/%_2048.jsonl): data_papers/trimmed/%_2048.jsonl: data_papers/personas/%.jsonl $(MAKE_DIR)/papers-trim.options | $(READY)
	$(PY) filter_quality.py --input $< --output $@ --max-tokens $(MAX_TOKENS) --tokenizer $(TOKENIZER) $(FILTER_OPTIONS)
	$(RAN)

# A section stands on the same side in every voice: its group decides, and the group is the same in all files.
$(VOICE_NAMES:%=data_papers/split/%/ledger.json): data_papers/split/%/ledger.json: data_papers/trimmed/%_2048.jsonl $(MAKE_DIR)/papers-split.options | $(READY)
	$(PY) split_data.py --input $< --output-dir $(@D) --ratios $(PAPERS_SPLIT) $(SPLIT_OPTIONS)
	$(RAN)

# The ledgers of the adapters are written when all of them are trained; the last one stands for all.
runs/papers/$(lastword $(VOICE_NAMES))/ledger.json: $(VOICE_NAMES:%=data_papers/split/%/ledger.json) $(MAKE_DIR)/papers-train.options | $(READY)
	$(PY) train.py --data data_papers/split --adapters $(subst $(empty) ,$(comma),$(VOICE_NAMES)) --model $(MODEL) --output runs/papers $(PIPELINE_TRAIN) $(RESUMING)
	$(RAN)

# --- documents --------------------------------------------------------------------------------------------------------
documents: runs/documents/ledger.json ## documents -> questions and answers -> adapter [INPUT=file or folder]
	$(call tell,$@,runs/documents/adapter)

$(eval $(call reading,documents,documents,$(call given,INPUT,examples/texts)))
$(eval $(call options,documents-qa,$(LLM) $(LLM_OPTIONS)))
$(eval $(call options,documents-filter,$(MIN_QUALITY) $(FILTER_OPTIONS)))
$(eval $(call split_and_train,documents,$(call given,RATIOS,85/15)))

data_documents/qa/train.json: data_documents/formatted/train.json $(MAKE_DIR)/documents-qa.options | $(READY)
	$(PY) prepare_data_with_llm.py generate-qa --input $< --output $@ $(ASK) $(LLM_OPTIONS)
	$(RAN)

data_documents/filtered/train.json: data_documents/qa/train.json $(MAKE_DIR)/documents-filter.options | $(READY)
	$(PY) filter_quality.py --input $< --output $@ --min-quality $(MIN_QUALITY) --workers $(WORKERS) $(FILTER_OPTIONS)
	$(RAN)

# --- Manim's documentation --------------------------------------------------------------------------------------------
manim-docs: runs/manim_docs/ledger.json ## two sources -> an instruction of 60 words at most -> adapter [SOURCES="edoh manim_docs"]
	$(call tell,$@,runs/manim_docs/adapter)

MANIM_DOCS := $(if $(call given,SOURCES,),--sources $(SOURCES),--sources-file examples/sources.yaml) --max-description-words 60
$(eval $(call read_sources,manim_docs,$(MANIM_DOCS),$(if $(call given,SOURCES,),sources.yaml,examples)))
$(eval $(call options,manim_docs-llm,$(LLM) $(LLM_OPTIONS)))
$(eval $(call options,manim_docs-filter,$(MIN_QUALITY) $(RENDER) $(FILTER_OPTIONS)))
$(eval $(call split_and_train,manim_docs,$(call given,RATIOS,80/20)))

data_manim_docs/enhanced/train.json: data_manim_docs/formatted/train.json $(MAKE_DIR)/manim_docs-llm.options | $(READY)
	$(PY) prepare_data_with_llm.py generate-descriptions --input $< --output $@ $(ASK) --workers $(WORKERS) $(LLM_OPTIONS)
	$(RAN)

data_manim_docs/filtered/train.json: data_manim_docs/enhanced/train.json $(MAKE_DIR)/manim_docs-filter.options | $(READY)
	$(PY) filter_quality.py --input $< --output $@ --min-quality $(MIN_QUALITY) --workers $(WORKERS) $(RENDERING) $(FILTER_OPTIONS)
	$(RAN)
