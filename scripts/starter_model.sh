#!/usr/bin/env bash
# Repeats the shipped starter model from nothing: starter_model.sh GROOVE POP909 FREEDOOM HARMONIX MUSIC [JOBS]
#   HARMONIX holds the public annotations (docs/synth.md); MUSIC is a folder of music without annotations that may be used (docs/training.md).
# Each step goes on where it was stopped. The result is exports/starter.onnx.
set -euo pipefail
cd "$(dirname "$0")/.."
groove=$1 pop909=$2 freedoom=$3 harmonix=$4 music=$5 jobs=${6:-2}
trainer=.venv-test/bin/trainer
export OMP_NUM_THREADS=1
# what is for live sound alone is left out of the first steps: rendered music has it already (docs/training.md)
plain=(room=0 microphone=0 clipping=0 drum_muting=0)
common=(model=tcn dropout=0.2 threads=1 wandb=disabled)

echo "starter: rendered music, and sounds without a beat"
$trainer synth data/synth --hours 16 --seed 1 --jobs "$jobs" --groove "$groove" --pop909 "$pop909" --freedoom "$freedoom"
$trainer synth data/freedoom --only freedoom --freedoom "$freedoom" --hours 2.5 --seed 51 --jobs "$jobs"
$trainer synth data/heavy --only heavy --hours 2.5 --seed 41 --jobs "$jobs"
$trainer synth data/harmonix-synth --harmonix "$harmonix" --groove "$groove" --hours 7.6 --seed 11 --jobs "$jobs"
$trainer synth data/nothing --nothing --hours 2.5 --seed 21 --jobs "$jobs"
$trainer preprocess "data=[synth,heavy,freedoom,harmonix-synth,nothing]" --jobs "$jobs"

echo "starter: the first model, and one that hears 200 ms ahead"
$trainer train data=synth run_id=starter-base fold=0 steps=5000 learning_rate=0.0015 \
    "${common[@]}" "${plain[@]}" voices=0
$trainer train data=synth run_id=starter-teacher fold=8 steps=3000 learning_rate=0.0015 seed=5 \
    dim=48 label_delay=10 "${common[@]}"
$trainer export starter-base
$trainer export starter-teacher

echo "starter: what they, the flux and librosa agree on in unannotated music"
[ -x .venv-librosa/bin/python ] || python3 -m venv .venv-librosa
.venv-librosa/bin/python -m pip install --quiet --disable-pip-version-check librosa==0.11.0
.venv-librosa/bin/python scripts/librosa_beats.py "$music" data/votes/librosa
$trainer label "$music" data/labelled --jobs "$jobs" --votes data/votes/librosa --needed 2 \
    --model exports/starter-base.onnx --model exports/starter-teacher.onnx
$trainer preprocess data=labelled --jobs "$jobs"

echo "starter: the first model goes on with all of it"
$trainer train "data=[synth,heavy,freedoom,harmonix-synth,nothing,labelled]" run_id=starter init=starter-base fold=0 \
    steps=18000 learning_rate=0.001 seed=7 "${common[@]}" room=0.1 microphone=0.1 clipping=0.05 drum_muting=0.1 voices=0.15
$trainer export starter --flux-mix 0.3 \
    --licence "rendered: Groove CC BY 4.0, POP909 MIT, Freedoom BSD-3, Harmonix grids MIT, MMA grooves; labelled free music; see CREDITS.md"
echo "exports/starter.onnx is ready: .venv/bin/beattrack --model exports/starter.onnx --file SONG"
