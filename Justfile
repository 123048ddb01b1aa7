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

# Cost of the live chain (time per hop, memory, start-up, disk), then of the trainer; fails on a broken bound
bench: bench-runtime bench-training

# Cost of the live chain alone
bench-runtime *ARGS: _runtime
    @.venv/bin/python benchmarks/cost.py {{ARGS}}

# What noise, silence, other tempi and songs do to tracker and clock; --load 20 adds a busy machine
bench-robustness *ARGS: _test-env
    @.venv-test/bin/python benchmarks/robustness.py {{ARGS}}

# Two hours of audio and 15 minutes in real time: flat memory, no beat lost or doubled (--short: 2 minutes in all)
soak *ARGS: _test-env
    @.venv-test/bin/python benchmarks/soak.py {{ARGS}}

# Cost of the trainer alone: speed of preprocessing and of training, share of data loading
bench-training *ARGS: _test-env
    @.venv-test/bin/python benchmarks/training.py {{ARGS}}

# Run aubio, BeatNet, madmom, librosa and ours over a folder of songs with .beats, and score them (docs/peers.md)
bench-peers folder *ARGS: _test-env
    @PYTHONPATH=benchmarks .venv-test/bin/python -m peers {{quote(folder)}} {{ARGS}}

# Write the latest finished run, or a named one, as an ONNX file in exports/: just export-onnx RUN_ID
export-onnx *ARGS: _test-env
    .venv-test/bin/trainer export {{ARGS}}

# Train a network on data/harmonix: just train data=synth fold=3 (runs in .venv-test, not in an image)
train *ARGS: _test-env
    @.venv-test/bin/trainer train {{ARGS}}

# Score a trained or shipped model: just eval --data gtzan
eval *ARGS: _test-env
    @.venv-test/bin/trainer eval {{ARGS}}

# What this machine can do for the trainer, and what to mend
doctor *ARGS: _test-env
    @.venv-test/bin/trainer doctor {{ARGS}}

# Build the trainer image, for docker compose run --rm trainer train (docs/images.md)
image-trainer *ARGS: _compose-user
    DOCKER_BUILDKIT=1 docker build -f docker/trainer.Dockerfile -t beattrack-trainer \
        --build-arg REVISION="$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null)" {{ARGS}} .

# Build the runtime image on a Jetson, for docker run beattrack-jetson --mic (docs/jetson.md)
image-jetson *ARGS: _compose-user
    DOCKER_BUILDKIT=1 docker build -f docker/jetson.Dockerfile -t beattrack-jetson {{ARGS}} .

# Build both images on stand-in bases and let them do their work (skips where no engine can start)
images-test *ARGS: _test-env
    .venv-test/bin/python -m pytest tests/images {{ARGS}}

# Refresh docker/*.lock, what both images install, with hashes
lock: _test-env
    @.venv-test/bin/python docker/lock.py

# Repeat the shipped starter model from nothing: some three hours on two idle cores (docs/training.md)
starter-model groove pop909 freedoom harmonix music jobs="2": _test-env
    bash scripts/starter_model.sh {{groove}} {{pop909}} {{freedoom}} {{harmonix}} {{music}} {{jobs}}

# Render a small set, train on it, evaluate, export and track the bundled song: some 7 minutes
pipeline dir="data/pipeline": _test-env
    @bash scripts/pipeline.sh {{dir}}

# Run any command of the trainer: just trainer --help
trainer *ARGS: _test-env
    @.venv-test/bin/trainer {{ARGS}}

# What containers write in this folder belongs to who builds here; compose reads .env.
[private]
_compose-user:
    @[ -e .env ] || printf 'UID=%s\nGID=%s\n' "$(id -u)" "$(id -g)" > .env

[private]
_runtime:
    @bash scripts/environment.sh runtime .venv "{{python}}"

[private]
_test-env:
    @bash scripts/environment.sh test .venv-test "{{python}}"
