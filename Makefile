SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JAHP := $(BIN)/jahp

CONFIG ?= configs/quickstart.yaml
RUN ?= runs/quickstart
TRAIN ?=
EVALUATE ?=
PARITY ?=
FUZZ ?=
CHAOS ?=

.PHONY: help install package train weights weights-ms-ssim variable-cost ladder recipe study study-files exactness bench bench-train bench-data streams test golden fuzz chaos large lint type docs tables tour parity parity-files refinement refinement-ablation refinement-memory weights-checks weights-report weights-gain targets runtimes web web-serve clean

help: ## list the targets
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 21

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try: make install PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]' --config-settings editable_mode=compat
	touch $@

install: $(VENV)/installed ## create .venv with pinned versions and install jahp into it

build/shards/%/index.json: data/photos/% | install
	$(JAHP) shards $< --output $(@D) --overwrite $(if $(filter val,$*),--in-order)

train: install build/shards/train/index.json build/shards/val/index.json ## train the quickstart model, code Kodak to real files with it, and show the result
	$(JAHP) train $(CONFIG) $(TRAIN)
	$(JAHP) evaluate --model $(RUN) --images data/kodak --compare jpeg --output $(RUN)/kodak.json --picture $(RUN)/kodak.png $(EVALUATE)
	@echo
	@echo "Trained:   a model with $(CONFIG) on data/photos; checkpoints and pictures are in $(RUN)/."
	@echo "Try it:    $(JAHP) compress PHOTO.png --model $(RUN)      then: $(JAHP) decompress PHOTO.jahp --model $(RUN)"
	@echo "Next:      train longer on more photographs; see docs/guide.md and $(JAHP) train --help"

WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
STUDY_CLASSICAL := jpeg jpeg2000 webp
STUDY_CURVES := $(foreach model,factorized scale_hyperprior mean_scale_hyperprior context joint,$(model)-gaussian1) \
    $(foreach density,gaussian3 logistic1 logistic3,joint-$(density))
STUDY_MODELS := $(foreach curve,$(STUDY_CURVES),$(foreach rate,0.0018 0.0035 0.0067 0.013,$(curve)-$(rate)-1))

LADDER := factorized-1 scale_hyperprior-1 scale_hyperprior-3 mean_scale_hyperprior-1 mean_scale_hyperprior-3 context-1 context-3 joint-1 joint-3

results/ladder/%.json: build/shards/train/index.json build/shards/val/index.json | install
	$(JAHP) train $(CONFIG) name=ladder-$* model.entropy_model=$(word 1,$(subst -, ,$*)) model.num_components=$(word 2,$(subst -, ,$*)) \
	    model.num_filters=32 model.num_latents=64 trainer.max_steps=300 trainer.val_every_steps=300 coding.max_images=0
	$(JAHP) evaluate --model runs/ladder-$* --images data/kodak --output runs/ladder-$*/kodak.json
	mkdir -p $(@D) && cp runs/ladder-$*/kodak.json $@

ladder: $(LADDER:%=results/ladder/%.json) ## train every entropy model, with K = 1 and 3, for 300 steps; compare file sizes with cross-entropies on Kodak

# configs/recipe/start.yaml, with the settings of one other file of that folder changed.
RECIPE := $(filter-out start,$(basename $(notdir $(wildcard configs/recipe/*.yaml))))

results/study/recipe/%.json: build/shards/train/index.json build/shards/val/index.json | install
	OMP_NUM_THREADS=1 $(JAHP) train configs/study.yaml configs/recipe/start.yaml configs/recipe/$*.yaml > runs/recipe-$*.txt
	$(JAHP) evaluate --model runs/recipe/$* --images data/kodak --curve $* --threads 1 --output runs/recipe/$*/kodak.json > /dev/null
	mkdir -p $(@D) && cp runs/recipe/$*/kodak.json $@

recipe: $(RECIPE:%=results/study/recipe/%.json) ## measure the effect of each setting of the study's training; -j2 runs two at a time

results/study/%.json: runs/study/%/checkpoints/last.ckpt
	$(JAHP) evaluate --model runs/study/$* --images data/kodak --threads 1 --output runs/study/$*/kodak.json > /dev/null
	mkdir -p $(@D) && cp runs/study/$*/kodak.json $@

study-files: $(patsubst runs/study/%/checkpoints/last.ckpt,results/study/%.json,$(wildcard runs/study/*/checkpoints/last.ckpt))

study: install build/shards/photos/index.json build/shards/val/index.json ## compare five entropy models and mixtures at four rates, with small networks on PHOTOS=folder (hours); write a report
	$(JAHP) sweep sweeps/study_transforms.yaml --workers $(WORKERS)
	$(JAHP) sweep sweeps/study.yaml --workers $(WORKERS)
	$(JAHP) sweep sweeps/study_mixture.yaml --workers $(WORKERS)
	$(MAKE) -j$(WORKERS) study-files
	$(JAHP) report results/study $(STUDY_CLASSICAL:%=results/classical/%.json) --anchor "Scale hyperprior" --output results/study/report \
	    --title "The paper's entropy models, small" --images data/kodak --model $(STUDY_MODELS:%=runs/study/%)

# One variable-rate model with 1200 steps, and four single-rate models with 300 steps each, from the same start.
RATES := 0.0018 0.0067 0.025 0.0932

results/rates/fixed-%.json: build/shards/photos/index.json build/shards/val/index.json
	$(JAHP) train configs/study.yaml configs/overlays/rates.yaml output_dir=runs/rates name=fixed-$* loss.lmbda=$*
	$(JAHP) evaluate --model runs/rates/fixed-$* --images data/kodak --threads 1 --curve "Four models" --output runs/rates/fixed-$*.json
	mkdir -p $(@D) && cp runs/rates/fixed-$*.json $@

results/rates/variable.json: build/shards/photos/index.json build/shards/val/index.json
	$(JAHP) train configs/study.yaml configs/overlays/rates.yaml configs/overlays/variable_rate.yaml output_dir=runs/rates name=variable trainer.max_steps=1200
	$(JAHP) evaluate --model runs/rates/variable --images data/kodak --threads 1 --curve "One model" \
	    --quality 1 17 34 50 67 84 100 --output runs/rates/variable.json
	mkdir -p $(@D) && cp runs/rates/variable.json $@

variable-cost: install $(RATES:%=results/rates/fixed-%.json) results/rates/variable.json ## compare one small variable-rate model with four small single-rate models, on PHOTOS=folder
	$(JAHP) report results/rates/fixed-*.json results/rates/variable.json --anchor "Four models" --output runs/rates/report \
	    --title "What variable rate costs"
	cp runs/rates/report/bd-rates.md runs/rates/report/rd-psnr.png results/rates/

# The bundled models: training of the whole model, then a phase in which only the entropy model learns, then (for PSNR) one
# in which the decoder learns from the latents that the encoder's search finds. An interrupted run resumes.
PHOTOS ?= data/photos/train
HOURS ?= 12
ENTROPY_HOURS ?= 1
SEARCH_HOURS ?= 1

build/shards/photos/index.json: | install
	$(JAHP) shards $(PHOTOS) --output $(@D) --overwrite

ENTROPY_PHASE := configs/overlays/entropy_phase.yaml data.batch_size=4 'trainer.max_time="00:$(ENTROPY_HOURS):00:00"'
SEARCH_PHASE := configs/overlays/search_phase.yaml data.batch_size=8 'trainer.max_time="00:$(SEARCH_HOURS):00:00"'

weights: install build/shards/photos/index.json build/shards/val/index.json ## train the bundled model on PHOTOS=folder for HOURS=12, from scratch or from where it stopped
	$(JAHP) train configs/weights.yaml 'trainer.max_time="00:$(HOURS):00:00"'
	$(JAHP) train configs/weights.yaml $(ENTROPY_PHASE) name=weights-entropy optim.start_from=runs/weights
	$(JAHP) train configs/weights.yaml $(SEARCH_PHASE) name=weights-search optim.start_from=runs/weights-entropy
	$(MAKE) bundle-joint-psnr

weights-ms-ssim: install build/shards/photos/index.json build/shards/val/index.json ## fine-tune the bundled model for MS-SSIM on PHOTOS=folder for HOURS=12
	$(JAHP) train configs/weights.yaml configs/overlays/weights_ms_ssim.yaml 'trainer.max_time="00:$(HOURS):00:00"'
	$(JAHP) train configs/weights.yaml configs/overlays/weights_ms_ssim.yaml $(ENTROPY_PHASE) \
	    name=weights-ms-ssim-entropy optim.start_from=runs/weights-ms-ssim
	$(MAKE) bundle-joint-ms-ssim

# Everything that a new bundled model changes: the export, its results on Kodak, and the pages and pictures made from them.
QUALITIES := 1 10 20 30 40 50 60 70 80 90 100
CURVES := weights/joint-psnr refinement/effort1 weights/joint-ms-ssim classical/jpeg classical/jpeg2000 classical/webp \
    classical/avif classical/hevc444 published/bpg444-tfc published/mbt2018-tfc-mse published/mbt2018-tfc-ms-ssim published/vtm-cai
bundle-joint-psnr: RUN := runs/weights-search
bundle-joint-psnr: MEASURED := results/refinement/effort1.json results/weights/checks.json results/weights/pictures.webp
bundle-joint-ms-ssim: RUN := runs/weights-ms-ssim-entropy

bundle-%: ## export a run as a bundled model and measure it: bundle-joint-psnr, bundle-joint-ms-ssim; RUN=folder NOTE="how it was trained"
	$(JAHP) export $(RUN) --dtype int8 $(if $(NOTE),--note "$(NOTE)") --output jahp_pl/weights/$* --force
	rm -f results/weights/$*.json $(if $(MEASURED),results/refinement/effort*.json $(MEASURED))
	$(MAKE) -j2 results/weights/$*.json $(MEASURED)
	$(JAHP) export jahp_pl/weights/$* --results results/weights/$*.json --output jahp_pl/weights/$* --force
	$(MAKE) weights-report

results/weights/%.json: | install
	mkdir -p $(@D) runs/bundled
	$(JAHP) evaluate --model $* --images data/kodak --threads 1 --quality $(QUALITIES) --output runs/bundled/$*.json > /dev/null
	cp runs/bundled/$*.json $@

results/weights/pictures.webp: | install
	$(JAHP) evaluate --model joint-psnr --images data/kodak --threads 1 --quality 25 --effort 1 --compare jpeg \
	    --picture runs/bundled/pictures.png --output runs/bundled/pictures.json > /dev/null
	$(BIN)/python -c 'from PIL import Image; Image.open("runs/bundled/pictures.png").convert("RGB").save("$@", quality=88, method=6)'

weights-report: install ## compare the bundled models with classical codecs and the paper's; write results/weights and the tables
	$(JAHP) report $(CURVES:%=results/%.json) --output runs/weights-report --anchor jpeg --anchor jpeg2000 --anchor BPG
	cp runs/weights-report/bd-rates{,-jpeg2000,-bpg}.md runs/weights-report/rd-{psnr,ms_ssim}.png results/weights/
	$(MAKE) tables

BEFORE ?= HEAD

weights-gain: install ## compute BD-rates of joint-psnr's results against those of commit BEFORE=HEAD, without a search and with effort 1
	for one in weights/joint-psnr refinement/effort1; do \
	    mkdir -p runs/gain/before/$$one runs/gain/now/$$one; \
	    git show $(BEFORE):results/$$one.json > runs/gain/before/$$one/result.json; \
	    cp results/$$one.json runs/gain/now/$$one/result.json; \
	    $(JAHP) report runs/gain/{before,now}/$$one --output runs/gain/report/$$one; \
	done

runs/full-%/checkpoints/last.ckpt: build/shards/train/index.json build/shards/val/index.json | install
	$(JAHP) train $(CONFIG) configs/overlays/full_width.yaml name=full-$* model.num_components=$*

FULL := runs/full-1 runs/full-3

exactness: $(FULL:%=%/checkpoints/last.ckpt) ## check that full-size models code Kodak to equal latents under all conditions (threads, instruction sets, ...)
	$(BIN)/python -m checks.exactness.run $(FULL) --output results/exactness.json

runtimes: web ## measure cold starts and memory of the runtimes; compare their latents, including the browser's
	$(JAHP) bench runtimes --image data/kodak/kodim23.png -o results/runtimes.json
	$(BIN)/python -m checks.exactness.runtimes --images data/kodak --model joint-psnr mixture --output results/runtimes-exact.json

bench: $(FULL:%=%/checkpoints/last.ckpt) $(VENV)-parity/installed ## time the coding stages of full-size models, and CompressAI with the same weights
	$(JAHP) bench coding --model $(FULL) --images data/kodak --limit 1 --output results/bench.json --peer "$(VENV)-parity/bin/python -m checks.parity.strings"

bench-train: build/shards/train/index.json $(VENV)-parity/installed ## time training steps of the paper's model, and CompressAI's
	$(JAHP) bench train configs/mbt2018.yaml data.num_workers=1 --variant trainer.channels_last=true --steps 2 --rounds 3 \
	    --output results/bench-train.json --peer "$(VENV)-parity/bin/python -m checks.parity.steps"

bench-data: build/shards/train/index.json ## compare the crops per second from shards and from a plain file loader
	$(JAHP) bench data configs/mbt2018.yaml data.num_workers=2 'data.train=[]' --images data/photos/train --output results/bench-data.json

streams: install ## measure the memory of jahp shards and of a data worker over 100,000 photographs
	$(BIN)/python -m checks.streams.run --output results/streams.json

# One thread per process, because threads of several processes would wait for each other. The tests of a file run in one
# process, so that its fixtures are created once.
test: install ## run all tests (needs no network and no GPU)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

golden: install ## decode the golden files of every format version to the latents that they were made from
	$(BIN)/python -m pytest tests/codec/test_golden_files.py tests/docs/test_file_format.py -k golden

fuzz: install ## code images of every size up to 70x70; check that reading 100,000 damaged .jahp files and 20,000 others does no harm
	$(BIN)/python -m checks.fuzz.sizes
	$(BIN)/python -m checks.fuzz.run --output results/fuzz.json $(FUZZ)
	$(BIN)/python -m checks.fuzz.run --target inputs --cases 20000 $(FUZZ)

chaos: install ## kill a training run twenty times, resume it each time, and compare the result with undisturbed runs
	$(BIN)/python -m checks.chaos.run --output results/chaos.json $(CHAOS)

runs/quickstart/checkpoints/last.ckpt: build/shards/train/index.json build/shards/val/index.json | install
	$(JAHP) train configs/quickstart.yaml

large: runs/quickstart/checkpoints/last.ckpt ## code images of up to 50 megapixels, each within 4 GiB
	$(BIN)/python -m checks.fuzz.large runs/quickstart --output results/large.json

lint: install ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: install ## check types in strict mode
	$(BIN)/mypy

docs: install ## build the site of docs/ in build/site; needs no network
	$(BIN)/python docs/assemble.py build/docs
	$(BIN)/mkdocs build --strict --quiet
	@echo "site: build/site/index.html"

tables: install ## write the tables of README.md and docs/ that come from results/
	$(BIN)/python docs/tables

tour: install ## run the notebook docs/tour.ipynb and store its outputs
	$(BIN)/python docs/run_notebook.py docs/tour.ipynb

$(VENV)-parity/installed: checks/parity/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("CompressAI 1.2.8 needs numpy below 2, hence Python 3.11 or 3.12; try: make parity PYTHON=python3.12") if sys.version_info[:2] not in ((3, 11), (3, 12)) else None'
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python -m pip install --quiet -c $< torch
	$(VENV)-parity/bin/python -m pip install --quiet -c $< --no-deps torchvision
	$(VENV)-parity/bin/python -m pip install --quiet -c $< compressai
	touch $@

parity: $(VENV)-parity/installed ## compare networks and likelihoods with CompressAI 1.2.8, in a separate environment
	$(VENV)-parity/bin/python -m checks.parity.compare $(PARITY)

parity-files: runs/full-1/checkpoints/last.ckpt $(VENV)-parity/installed ## compare files of imported weights with CompressAI's own strings on Kodak
	$(BIN)/python -m checks.parity.files runs/full-1 runs/quickstart --python $(VENV)-parity/bin/python $(PARITY)

# One file for each effort, with a curve over the qualities; results/weights/joint-psnr.json has effort 0.
EFFORTS ?= 1 2 3

results/refinement/effort%.json: | install
	mkdir -p $(@D) runs/refinement
	$(JAHP) evaluate --model joint-psnr --quality 1 10 20 40 60 80 90 100 --effort $* --images data/kodak --threads 1 \
	    --output runs/refinement/effort$*.json > /dev/null
	cp runs/refinement/effort$*.json $@

refinement: $(EFFORTS:%=results/refinement/effort%.json) ## code Kodak with the bundled model and a search of EFFORTS="1 2 3"; write the tables
	$(MAKE) tables

results/weights/checks.json: | install
	OMP_NUM_THREADS=1 $(BIN)/python -m checks.weights.run joint-psnr --images data/kodak --output $@

weights-checks: ## measure how much hyperprior and context save in the bundled model, and how it codes unusual images
	rm -f results/weights/checks.json
	$(MAKE) results/weights/checks.json tables

targets: install ## measure how well and how fast files of the bundled model meet --size, --bpp and --psnr
	OMP_NUM_THREADS=1 $(BIN)/python -m checks.targets.run joint-psnr --images data/kodak --output results/targets.json

LONGEST ?= 4

refinement-ablation: install ## measure the effect of each part of the encoder's search, and efforts 1 to LONGEST="4", on parts of four Kodak images
	OMP_NUM_THREADS=1 $(BIN)/python -m checks.refinement.run --images data/kodak --every 6 --longest $(LONGEST) \
	    --output results/refinement/ablation.json
	$(MAKE) tables

refinement-memory: install ## search 50 images and one of 12 megapixels with --memory 512, and measure the peak memory
	OMP_NUM_THREADS=1 $(BIN)/python -m checks.refinement.memory --images data/kodak --output results/refinement/memory.json

# The page in web/. Generated files are not in git.
ORT_WEB := 1.30.0

build/onnxruntime-web/package/package.json:
	mkdir -p build/onnxruntime-web
	cd build/onnxruntime-web && npm pack --silent onnxruntime-web@$(ORT_WEB) > /dev/null && tar xzf onnxruntime-web-$(ORT_WEB).tgz

web: install build/onnxruntime-web/package/package.json ## build the page that codes in a browser, with onnxruntime-web from npm and the bundled model
	$(BIN)/python web/build.py build/onnxruntime-web/package/dist

PORT ?= 8000
web-serve: install ## serve the page of `make web` on localhost, PORT=8000
	$(BIN)/python web/serve.py $(PORT)

package: install ## build wheel and sdist in dist/, install them into a fresh environment, and try them from an empty folder
	$(BIN)/python -m checks.package.run dist

clean: ## remove everything that was generated, including the environment
	rm -rf $(VENV) $(VENV)-parity build runs dist web/graphs web/model web/vendor *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find jahp_pl tests checks -name __pycache__ -type d -prune -exec rm -rf {} +
