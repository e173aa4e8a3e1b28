# Two commands: `make demo` shows the whole story, `make test` proves it. Both make .venv when it is missing.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
QUIET := DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 GX_ANALYTICS_ENABLED=false BENTOML_DO_NOT_TRACK=true PREFECT_SERVER_ANALYTICS_ENABLED=false
RUN := env $(QUIET) PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: demo test coverage check lint bench lock clean
.DEFAULT_GOAL := test

demo: .venv/.ready          ## the whole story on handwritten digits, in a clone of its own; or KIND=speech_command, …
	$(RUN) python -m tests.demo $(KIND)

test: .venv/.ready          ## all tests but the slow and the GPU ones
	$(RUN) OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile

coverage: .venv/.ready      ## the tests, slower, and which lines none of them reaches: coverage.txt
	$(RUN) OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --cov --cov-report=
	$(RUN) coverage report --show-missing --skip-covered --sort=-miss > coverage.txt
	@$(RUN) coverage report --skip-covered --sort=-miss | sed -n '1,12p; /^TOTAL/p'
	@echo "All files and the lines that no test reaches: coverage.txt"

check: lint test            ## what CI runs

lint: .venv/.ready          ## format, lint, types
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy

bench: .venv/.ready         ## every benchmark beside its peer; writes benchmarks/results.md
	$(RUN) python -m benchmarks

lock: .venv/.uv/bin/uv      ## requirements.in and requirements-dev.in -> requirements.txt
	.venv/.uv/bin/uv pip compile requirements.in requirements-dev.in -o requirements.txt --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --quiet

clean:                      ## everything that can be made again
	rm -rf .venv .ratchet .demo artifacts .coverage* coverage.txt

.venv/.uv/bin/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ratchet needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv/.uv
	.venv/.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: requirements.txt pyproject.toml | .venv/.uv/bin/uv
	.venv/.uv/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv
	VIRTUAL_ENV=.venv .venv/.uv/bin/uv pip sync --quiet --require-hashes --compile-bytecode requirements.txt
	VIRTUAL_ENV=.venv .venv/.uv/bin/uv pip install --quiet --offline --no-deps --no-build-isolation -e .
	touch $@
