# `make demo` and `make test` set everything up first, in .venv/, and write nothing outside this checkout but pip's cache.
.PHONY: venv demo demo-stream demo-base demo-prior read-base test lint format docs fuzz clean

VENV := $(CURDIR)/.venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/complete

# Temporary files of whatever runs after this go to a folder that goes when the recipe ends, interrupted or not. It is
# not below the checkout because the path of a socket, which data loaders make in it, may have 108 characters at most.
OWN_TMP = tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && trap 'exit 130' INT && trap 'exit 143' TERM && \
	export TMPDIR="$$tmp"
# Libraries keep caches and settings in the home folder, or where these variables say: all that goes below .venv too.
OWN_HOME = unset HF_HOME MPLCONFIGDIR NUMBA_CACHE_DIR TORCH_HOME XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME && \
	mkdir -p "$(VENV)/home" && export HOME="$(VENV)/home"
RUN = $(OWN_TMP) && $(OWN_HOME) &&

PIP_INSTALL := "$(PYTHON)" -m pip install --quiet --no-input --disable-pip-version-check --progress-bar off \
	--no-compile --upgrade --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE

venv: $(STAMP)

# The stamp is the last thing made and the first to go: an environment without one was interrupted and is made anew.
# The newer pip resolves in a third of the time. Bytecode is left to the first import: 20 s of work instead of 75.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@fail() { echo "make: $$1" >&2; exit 1; }; \
	for python in python3.11 python3 ""; do \
		"$$python" -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info < (3, 12))' 2>/dev/null && break; \
	done; \
	[ -n "$$python" ] || fail "Python 3.11, 3.11.4 or later, is missing: neither python3.11 nor python3 is one. Install it."; \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || \
		fail "$$python has no venv or ensurepip module. Install it (Debian and Ubuntu: python3.11-venv)."; \
	$(OWN_TMP); \
	echo "Setting up .venv: NeMo and PyTorch, about 2 minutes and 2.5 GB ..."; \
	if [ ! -e $@ ]; then \
		rm -rf "$(VENV)" && "$$python" -m venv "$(VENV)" || fail "No virtual environment could be made in .venv."; \
	fi; \
	rm -f $@; \
	$(PIP_INSTALL) pip && $(PIP_INSTALL) --build-constraint constraints.txt --editable '.[demo,dev,ray,s3,serve]' || \
		fail "The installation failed, see the lines above. Once that is mended, run make again."; \
	touch $@

demo: $(STAMP)
	@$(RUN) "$(PYTHON)" -m demo.run --output demo_output

# A real person as they speak, heard by the base for streams and with their own adapter; whom in ARGS.
demo-stream: $(STAMP)
	@$(RUN) "$(PYTHON)" -m demo.stream $(ARGS)

# How the committed demo base models were made; options in ARGS.
demo-base: $(STAMP)
	@$(RUN) "$(PYTHON)" -m demo.base $(ARGS)

# How the committed voice prior of the demo's base was made: about 15 minutes.
demo-prior: $(STAMP)
	@$(RUN) "$(PYTHON)" -m demo.people population "$$tmp/people" && \
		"$(VENV)/bin/ds2-adapters" fit-prior model.nemo_model=demo/base.nemo prior.epochs=12 \
			model.train_ds.manifest_filepath="$$tmp/people/train.json" output=demo/prior.pt $(ARGS)

# A base for read speech; manifests and other settings in ARGS, see docs/bases.md.
read-base: $(STAMP)
	@$(RUN) "$(VENV)/bin/ds2-adapters" train-base --config-name=deepspeech2_read init_from_nemo_model=demo/base.nemo $(ARGS)

# Files are shared out among processes, for each core one, and at most four: each has NeMo in its memory.
test: lint $(VENV)/s3/complete
	@$(RUN) "$(PYTHON)" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	@"$(PYTHON)" -m ruff check
	@"$(PYTHON)" -m ruff format --check
	@"$(PYTHON)" -m mypy

# The site, in site/; anything that mkdocs warns of is an error.
docs: $(VENV)/docs
	@$(RUN) NO_MKDOCS_2_WARNING=1 "$(PYTHON)" -m mkdocs --quiet build --strict
	@echo "site/index.html"

# A minute for each parser, with coverage guidance; what is found stays in fuzz_findings/. SECONDS_EACH=600 for longer.
SECONDS_EACH := 60
fuzz: $(VENV)/fuzz
	@$(RUN) "$(PYTHON)" -m tests.fuzz --seconds $(SECONDS_EACH) --findings fuzz_findings

# The environment with one more extra.
$(VENV)/docs $(VENV)/fuzz: $(VENV)/%: $(STAMP)
	@$(OWN_TMP) && $(PIP_INSTALL) --build-constraint constraints.txt --editable '.[$*]' && touch $@

# The S3 server of the tests: an environment of its own, for it needs what contradicts constraints.txt.
$(VENV)/s3/complete: tests/store/s3_server.txt $(STAMP)
	@$(OWN_TMP) && "$(PYTHON)" -m venv --clear "$(VENV)/s3" && "$(VENV)/s3/bin/python" -m pip install --quiet --no-input \
		--disable-pip-version-check --progress-bar off --requirement $< && touch $@

format: $(STAMP)
	@"$(PYTHON)" -m ruff check --fix
	@"$(PYTHON)" -m ruff format

clean:
	rm -rf .venv build dist *.egg-info demo_output fuzz_findings nemo_experiments outputs site
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
