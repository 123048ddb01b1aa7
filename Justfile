# beattrack: `just` lists the recipes. Each makes the environment that it needs, once.

set shell := ["bash", "-euo", "pipefail", "-c"]

# PYTHON=python3.12 just ... chooses the interpreter; else the first of these that fits.
python := env("PYTHON", "")
song := "runtime/demo/relaxation_piece.ogg"

[private]
default:
    @just --list --unsorted

# Track the bundled song and leave beats, clicks and a picture in demo/ (no torch, no GPU)
demo *ARGS: _runtime
    @mkdir -p demo
    @.venv/bin/beattrack --file {{song}} --beats demo/song.beats --jsonl demo/song.jsonl \
        --click demo/song_clicks.wav --plot demo/song.png {{ARGS}}

# Install what the tests need and run them all, after lint, format and type checks
test *ARGS: _test-env
    .venv-test/bin/ruff check .
    .venv-test/bin/ruff format --check .
    .venv-test/bin/mypy shared/src runtime/src trainer/src benchmarks
    OMP_NUM_THREADS=1 .venv-test/bin/python -m pytest {{ARGS}}

# Cost of the live chain: time per hop, memory, start-up, size of the environment
bench *ARGS: _runtime
    @.venv/bin/python benchmarks/cost.py {{ARGS}}

# Write the latest finished run, or a named one, as an ONNX file in exports/: just export-onnx RUN_ID
export-onnx *ARGS: _test-env
    .venv-test/bin/trainer export {{ARGS}}

# Repeat the shipped starter model from nothing: about an hour on two idle cores (docs/training.md)
starter-model groove pop909 jobs="2": _test-env
    bash scripts/starter_model.sh {{groove}} {{pop909}} {{jobs}}

# Run any command of the trainer: just trainer --help
trainer *ARGS: _test-env
    @.venv-test/bin/trainer {{ARGS}}

[private]
_runtime:
    @bash scripts/environment.sh runtime .venv "{{python}}"

[private]
_test-env:
    @bash scripts/environment.sh test .venv-test "{{python}}"
