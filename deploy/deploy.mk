# The site of the documentation, containers, and the names that targets had in systems that came before.

.PHONY: install dev lint prepare-data generate-qa init-config validate-config site-setup docs-site docker-build docker-run

install: setup ## the same as setup
	@echo "make $@: $(VENV) is ready"
dev: setup ## the same as setup; the tools for development are in the lock file
	@echo "make $@: $(VENV) is ready; make check, make test"
lint: $(READY) ## look for faults of style, without the tests of the rules
	$(PY) -m ruff check .
	$(PY) -m mypy $(TYPED)
prepare-data: data ## the same as data
generate-qa: data_documents/qa/train.json ## questions and answers of documents, without a training [INPUT=file or folder]
	@echo "make $@: up to date: $^"

# Where init-config writes, and what validate-config reads.
CONFIG ?= config.yaml
init-config: $(READY) ## write settings for a training [CONFIG=file TEMPLATE=name]
	$(PY) train.py config init --output $(CONFIG) --template $(or $(TEMPLATE),default)
validate-config: $(READY) ## check them [CONFIG=file]
	$(PY) train.py config validate --config $(CONFIG)

# --- the site of the documentation ------------------------------------------------------------------------------------
site-setup: $(READY) ## add what builds the site of the documentation and runs the notebook
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-site.lock

docs-site: $(READY) ## the documentation as a site that opens from the disk -> build/site
	@$(PY) -c 'import material' 2>/dev/null || { echo "make: mkdocs-material is not installed; make site-setup" >&2; exit 1; }
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "make $@: build/site/index.html"

# --- containers -------------------------------------------------------------------------------------------------------
DOCKER ?= docker
DOCKERFILE ?= deploy/Dockerfile
IMAGE ?= linemill
ARGS ?= all
# "all", or a device; nothing without a GPU.
GPUS ?=
KEYS := OPENAI_API_KEY ANTHROPIC_API_KEY GEMINI_API_KEY HF_TOKEN
# Results, the options that they were made with, and downloads stay in this checkout: a run goes on where another was.
RESULTS := .make .cache data_formatted data_enhanced data_filtered data_split data_papers data_documents data_manim_docs runs
volume = --volume '$(abspath $(1)):$(2)'

# Inside, the user has the ids of whoever builds; root builds for the user 1000.
docker-build: ## build the container [DOCKERFILE=deploy/Dockerfile.cuda IMAGE=name TORCH=...]
	$(DOCKER) build --file $(DOCKERFILE) --tag $(IMAGE) $(call given,DOCKER_OPTIONS,) \
		$$([ "$$(id -u)" = 0 ] || echo --build-arg UID=$$(id -u) --build-arg GID=$$(id -g)) \
		$(if $(call given,TORCH,),--build-arg 'TORCH_BUILD=$(TORCH)') .

# Keys go in by name, so that their values stand on no command line.
docker-run: ## run a target of make in the container [ARGS="papers LLM=gemini" INPUT=folder GPUS=all]
	@mkdir -p $(RESULTS) .cache/home
	@[ "$$(id -u)" != 0 ] || chown 1000:1000 $(RESULTS) .cache/home
	$(DOCKER) run --rm $(call given,DOCKER_OPTIONS,) $(if $(GPUS),--gpus $(GPUS)) $(addprefix --env ,$(KEYS)) \
		$(foreach folder,$(RESULTS),$(call volume,$(folder),/linemill/$(folder))) \
		$(call volume,.cache/home,/home/linemill/.cache) \
		$(if $(INPUT),$(call volume,$(INPUT),/linemill/input:ro)) $(IMAGE) $(ARGS) $(if $(INPUT),INPUT=input)
