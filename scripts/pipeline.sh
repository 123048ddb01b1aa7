#!/usr/bin/env bash
# From nothing to a model that tracks the bundled song: pipeline.sh [DIR]
# Every stage goes on where it was stopped. The environment may set the size: PIPELINE_MINUTES of
# audio in tracks of PIPELINE_SECONDS, PIPELINE_STEPS of training, PIPELINE_JOBS processes. The
# words in PIPELINE_SYNTH and PIPELINE_EVAL are added to those commands, those in PIPELINE_TRAIN
# replace the settings of training. PIPELINE_BIN is the folder of the programs.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${1:-data/pipeline}
minutes=${PIPELINE_MINUTES:-40} seconds=${PIPELINE_SECONDS:-36}
steps=${PIPELINE_STEPS:-500} jobs=${PIPELINE_JOBS:-2} bin=${PIPELINE_BIN:-.venv-test/bin}
read -ra more_synth <<<"${PIPELINE_SYNTH:-}"
# few steps: a short warm-up, and an average that forgets the start
read -ra settings <<<"${PIPELINE_TRAIN:-warmup_steps=50 learning_rate=0.003 average_decay=0.99 validate_every=200}"
read -ra more_eval <<<"${PIPELINE_EVAL:-}"
song=runtime/demo/relaxation_piece.ogg
took=()
export OMP_NUM_THREADS=1

stage() { # name, command: run it and say how long it took
    local name=$1 start=$SECONDS code=0
    shift
    "$@" || code=$?
    if ((code)); then
        echo "pipeline: $name failed; the same command goes on from there." >&2
        exit "$code"
    fi
    took+=("$(printf '%-11s%3d:%02d' "$name" $(((SECONDS - start) / 60)) $(((SECONDS - start) % 60)))")
    echo "pipeline: ${took[-1]}"
}

stage synth "$bin/trainer" synth "$dir/set" --seed 1 --jobs "$jobs" --seconds "$seconds" \
    --hours "$(awk "BEGIN { print $minutes / 60 }")" ${more_synth[@]+"${more_synth[@]}"}
stage check "$bin/trainer" check data="$dir/set"
stage preprocess "$bin/trainer" preprocess data="$dir/set" --jobs "$jobs"
stage train "$bin/trainer" train data="$dir/set" run_id=pipeline runs_dir="$dir/runs" \
    model=tcn steps="$steps" threads=1 "${settings[@]}"
stage eval "$bin/trainer" eval pipeline --runs-dir "$dir/runs" --save-dir "$dir/results" \
    --data "$dir/set" --jobs "$jobs" ${more_eval[@]+"${more_eval[@]}"}
stage export "$bin/trainer" export pipeline --runs-dir "$dir/runs" --save-dir "$dir" \
    --results "$dir/results"
stage beattrack "$bin/beattrack" --file "$song" --model "$dir/pipeline.onnx" \
    --beats "$dir/song.beats"

printf '\n'
printf '%s\n' "${took[@]}"
"$bin/python" - "$dir" <<'END'
import json
import sys
from pathlib import Path

(path,) = Path(sys.argv[1], "results").rglob("scores.json")
scores = json.loads(path.read_text())
live, dbn = scores["live"], scores["not_live"]["dbn_offline"]
rows = [("beats", "beat_f"), ("beats as emitted", "beat_f_emitted"), ("downbeats", "downbeat_f")]
print(f"\nF-measure on {scores['data']['tracks']} held-out tracks")
for name, key in rows:
    print(f"  {name:18s}{live[key]:.2f}")
if dbn:
    print(f"  {'beats, offline':18s}{dbn['beat_f']:.2f}")
print(f"\nmodel     {sys.argv[1]}/pipeline.onnx\nscores    {path.parent}/report.html")
print(f"run       {sys.argv[1]}/runs/pipeline\nthe song  {sys.argv[1]}/song.beats")
END
