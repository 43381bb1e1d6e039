# Thin: every recipe is a command you can type yourself; the README shows them without make.
PYTHON ?= python3
ARGS ?=
BUILD ?= build
BIN := .venv/bin
JETSON := $(wildcard /etc/nv_tegra_release)
CUDA := $(wildcard /dev/nvidia0)

# A Jetson keeps NVIDIA's own torch: the venv sees the system's packages, and their versions are pinned to what is there.
VENV_FLAGS := $(if $(JETSON),--system-site-packages)
EXTRAS := $(if $(JETSON),jetson,$(if $(CUDA),onnxruntime-gpu,onnxruntime))
CONSTRAINTS := $(if $(JETSON),build/installed.txt,constraints.txt)

.PHONY: bench test report models lint clean

bench: .venv/installed node_modules/.installed
	$(BIN)/python -m pytest --build=$(BUILD) $(ARGS); status=$$?; \
	test $$status -ge 4 || $(BIN)/python -m fixtures.report $(BUILD)/allure-results $(BUILD)/report; exit $$status

test: .venv/installed
	$(BIN)/python -m pytest suites/meta $(ARGS)

report: node_modules/.installed
	$(BIN)/python -m fixtures.report $(BUILD)/allure-results $(BUILD)/report

models: .venv/installed
	$(BIN)/python -m fixtures.corpus --out build/corpus
	$(BIN)/python -m targets.training --task sentiment --data build/corpus/sentiment/train.tsv --eval fixtures/data/sentiment/test.tsv --out fixtures/zoo/sentiment
	$(BIN)/python -m targets.training --task ner --data build/corpus/ner/train.conll --eval fixtures/data/ner/test.conll --out fixtures/zoo/ner
	$(BIN)/python -m targets.training --task qa --data build/corpus/qa/train.json --eval fixtures/data/qa/test.json --out fixtures/zoo/qa

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV_FLAGS) .venv
	$(if $(JETSON),mkdir -p build && $(BIN)/python -m pip list --format=freeze | grep -iE '^(torch|torchvision|torchaudio|onnxruntime-gpu|tensorrt)==' > build/installed.txt || true)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$(EXTRAS),dev]'
	@touch $@

# The report needs Node; without it everything else is still done, and the report step says how to get it.
node_modules/.installed: package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund && touch $@ || echo 'npm ci failed'; fi

clean:
	rm -rf $(BUILD)
