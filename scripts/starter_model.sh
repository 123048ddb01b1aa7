#!/usr/bin/env bash
# Repeats the shipped starter model from nothing: starter_model.sh GROOVE POP909 [JOBS]
# Each step goes on where it was stopped. The result is exports/starter.onnx.
set -euo pipefail
cd "$(dirname "$0")/.."
groove=$1 pop909=$2 jobs=${3:-2}
trainer=.venv-test/bin/trainer
export OMP_NUM_THREADS=1

$trainer synth data/synth --hours 8 --seed 1 --jobs "$jobs" --groove "$groove" --pop909 "$pop909"
$trainer preprocess data=synth --jobs "$jobs"
$trainer train data=synth run_id=starter fold=0 \
    model=tcn steps=5000 dropout=0.2 learning_rate=0.0015 threads=1
$trainer export starter --flux-mix 0.3 \
    --licence "rendered: Groove CC BY 4.0, POP909 MIT, MMA grooves; see CREDITS.md"
echo "exports/starter.onnx is ready: .venv/bin/beattrack --model exports/starter.onnx --file SONG"
