# Thin: every recipe is a command you can type yourself; the README shows them without make.
PYTHON ?= python3
ARGS ?=
# Processes of `make test`; what takes times runs after them, alone, and is taken up to three times before it is red: a
# machine has bad minutes. (Status 5: a selection in ARGS left nothing of a part.)
TESTERS ?= 2
BUILD ?= build
BIN := .venv/bin
JETSON := $(wildcard /etc/nv_tegra_release)
CUDA := $(wildcard /dev/nvidia0)

# A Jetson keeps NVIDIA's own torch: the venv sees the system's packages, and their versions are pinned to what is there.
VENV_FLAGS := $(if $(JETSON),--system-site-packages)
EXTRAS := $(if $(JETSON),jetson,$(if $(CUDA),onnxruntime-gpu,onnxruntime))
CONSTRAINTS := $(if $(JETSON),build/installed.txt,constraints.txt)

# llama-cpp-python is built from source (pip keeps the wheel); with CUDA where there is a GPU.
GPU_FLAGS := $(if $(JETSON)$(CUDA),-DGGML_CUDA=on)
# The header of some GCCs tells the compiler that `ldtilecfg` reads 8 bytes of the 64 it reads, so that the others may never
# be written: what ggml compiles with it for processors with AMX dies of a protection fault on quantized weights.
AMX_HEADER := $(shell $(CC) -print-file-name=include/amxtileintrin.h 2>/dev/null)
SOUND_FLAGS := $(if $(shell grep -s 'ldtilecfg.*void \*\*' $(AMX_HEADER)),-mno-amx-int8)
BUILD_LLAMA = CFLAGS="$(SOUND_FLAGS) $$CFLAGS" CXXFLAGS="$(SOUND_FLAGS) $$CXXFLAGS" CMAKE_ARGS="$(GPU_FLAGS) $(CMAKE_ARGS)" $(BIN)/python -m pip
# llama.cpp's own programs, found here if `make llama-tools` has built them, or where you say.
LLAMA := $(shell sed -n 's/^llama-cpp-python==//p' constraints.txt)
# Built for this very processor (-march=native): a cache that comes along to one that can do less would crash there.
CPUINFO ?= /proc/cpuinfo
PROCESSOR := $(firstword $(shell grep -s -m1 -E '^(flags|Features)' $(CPUINFO) | cksum))
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edge-nlp-suite/llama.cpp-of-llama-cpp-python-$(LLAMA)-$(PROCESSOR)
export LLAMA_CPP_DIR ?= $(TOOLS)
# pytest takes an existing path after an option of ours for a folder of tests, before it knows our options: so where the
# suite is, is said.
PYTEST := $(BIN)/python -m pytest -c pyproject.toml -p conftest

.PHONY: bench test power server serving report models lint clean llama-tools

bench: .venv/installed .venv/llama node_modules/.installed
	$(PYTEST) --build=$(BUILD) $(ARGS); status=$$?; \
	test $$status -ge 4 || $(BIN)/python -m fixtures.report $(BUILD)/allure-results $(BUILD)/report; exit $$status

test: .venv/installed .venv/llama node_modules/.installed
	$(BIN)/python -m pytest suites/meta -m "not alone" -n $(TESTERS) --dist loadfile $(ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest suites/meta -m alone --reruns 2 -rR $(ARGS) || test $$? -eq 5

# How well the suite itself sees: false alarms and detections of its gate, every planted fault. Some 40 minutes.
power: .venv/installed .venv/llama
	$(BIN)/python -m suites.meta.power $(BUILD)/power $(ARGS)

# All tasks with the embedded models on http://127.0.0.1:8000; `make server ARGS=--help` shows what can be told.
server: .venv/server .venv/llama
	$(BIN)/python -m targets.server $(ARGS)

report: node_modules/.installed
	$(BIN)/python -m fixtures.report $(BUILD)/allure-results $(BUILD)/report

models: .venv/installed
	$(BIN)/python -m fixtures.corpus --out build/corpus
	$(BIN)/python -m targets.training --task sentiment --data build/corpus/sentiment/train.tsv --eval fixtures/data/sentiment/test.tsv --out fixtures/zoo/sentiment
	$(BIN)/python -m targets.training --task ner --data build/corpus/ner/train.conll --eval fixtures/data/ner/test.conll --out fixtures/zoo/ner
	$(BIN)/python -m targets.training --task qa --data build/corpus/qa/train.json --eval fixtures/data/qa/test.json --out fixtures/zoo/qa
	$(BIN)/python -m targets.training --task summarization --data build/corpus/summarization/train.tsv --eval fixtures/data/summarization/test.tsv \
		--task translation --data build/corpus/translation/train.tsv --eval fixtures/data/translation/test.tsv \
		--out fixtures/zoo/t5 --max-length 256 --vocabulary 2000 --batch 32
	$(BIN)/python -m targets.training --task generation --data build/corpus/generation/train.jsonl --eval fixtures/data/generation/test.jsonl \
		--task chat --data build/corpus/chat/train.jsonl --eval fixtures/data/chat/test.jsonl \
		--out fixtures/zoo/llama --hidden 256 --layers 4 --feed-forward 768 --max-length 512 --vocabulary 2000 --batch 12

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_FLAGS) .venv
	$(if $(JETSON),mkdir -p build && $(BIN)/python -m pip list --format=freeze | grep -iE '^(torch|torchvision|torchaudio|onnxruntime-gpu|tensorrt)==' > build/installed.txt || true)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$(EXTRAS),dev]'
	@touch $@

# What the server must hold, how fast it is and what breaks it. Started here, or ARGS="--url http://board:8000".
serving: .venv/serving .venv/llama
	$(PYTEST) suites/serving --build=$(BUILD) $(ARGS)

.venv/serving: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[serving]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[mlperf]' \
	|| echo 'MLPerf LoadGen could not be installed, so its tests are skipped: it needs a C++ compiler where pip has no wheel of it'
	@touch $@

.venv/server: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[server]'
	@touch $@

# Everything else works without it, so a machine without a C++ compiler still gets its record of results.
.venv/llama: .venv/installed
	@echo 'llama-cpp-python: built from source where pip has no wheel of it yet (some 6 minutes on 2 cores, once)'
	@$(BUILD_LLAMA) install --quiet --disable-pip-version-check -c $(CONSTRAINTS) $(if $(wildcard $(TOOLS)/*.whl),--find-links $(TOOLS)) -e '.[llama]' && touch $@ \
	|| echo 'llama-cpp-python could not be built, so its cases are skipped: a C++ compiler is needed (apt install build-essential)'

# The programs that llama-cpp-python's source brings along: llama-server is a target, llama-bench an outside reference.
# The same build gives the wheel, which .venv/llama then takes from there: what both need is compiled once.
llama-tools: $(TOOLS)/bin/llama-server
$(TOOLS)/bin/llama-server: | .venv/installed
	rm -rf $(TOOLS) && mkdir -p $(TOOLS)/source
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python -c constraints.txt -d $(TOOLS) llama-cpp-python
	tar -xzf $(TOOLS)/llama_cpp_python-*.tar.gz --strip-components=1 -C $(TOOLS)/source
	$(BUILD_LLAMA) wheel --disable-pip-version-check --no-deps -v -w $(TOOLS) \
		-C build-dir=$(TOOLS) -C cmake.build-type=Release -C cmake.define.LLAVA_BUILD=OFF -C cmake.define.LLAMA_OPENSSL=OFF \
		-C cmake.define.LLAMA_BUILD_TOOLS=ON -C cmake.define.LLAMA_BUILD_SERVER=ON \
		-C 'build.targets=llama;llama-server;llama-bench;llama-cli' $(TOOLS)/source > $(TOOLS)/cmake.log 2>&1

# The report needs Node; without it everything else is still done, and the report step says how to get it.
node_modules/.installed: package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund && touch $@ || echo 'npm ci failed'; fi

clean:
	rm -rf $(BUILD)
