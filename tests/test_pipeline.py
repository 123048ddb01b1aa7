"""The whole way in a small size: the script of `just pipeline`, killed twice, then to its end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile", reason="soundfile is in the trainer's dependencies")
pytest.importorskip("mido", reason="mido is in the trainer's dependencies")

from beattrack_trainer.synth.arrange import check_soundfonts  # noqa: E402
from test_synth import needs_renderer  # noqa: E402

ROOT = Path(__file__).parents[1]
TRACKS = 10  # two of them are held out


def size(**words: str) -> dict[str, str]:
    """The environment of a small run."""
    font = min(check_soundfonts(None), key=lambda p: p.stat().st_size)
    return {
        **os.environ,
        "PIPELINE_BIN": str(Path(sys.executable).parent),
        "PIPELINE_MINUTES": f"{TRACKS * 14 / 60:.3f}",
        "PIPELINE_SECONDS": "14",
        "PIPELINE_STEPS": "100",
        "PIPELINE_JOBS": "1",
        "PIPELINE_SYNTH": f"--soundfont {font}",
        "PIPELINE_TRAIN": "frames=300 batch_size=2 dim=16 depth=4 warmup_steps=5 "
        "validate_every=100 validation_tracks=1 pictures=0 wandb=disabled",
        "PIPELINE_EVAL": "--no-dbn",
        **words,
    }


def kill_when(folder: Path, ready: Callable[[], bool], of: str) -> None:
    """Start the pipeline and kill its command with SIGKILL, it alone, as soon as ``ready``."""
    script = subprocess.Popen(
        ["bash", "scripts/pipeline.sh", str(folder)],
        cwd=ROOT,
        env=size(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 120
    while not ready():
        assert script.poll() is None, script.stdout and script.stdout.read()
        assert time.monotonic() < until, f"{of} did not get on"
        time.sleep(0.02)
    children = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    output = script.communicate(timeout=60)[0]
    assert script.returncode == 128 + signal.SIGKILL
    assert f"pipeline: {of} failed; the same command goes on from there." in output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@needs_renderer
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc to find what to kill")
def test_pipeline_from_nothing_to_beats_killed_on_the_way(tmp_path: Path):
    out = tmp_path / "out"
    tracks, store = out / "set" / "tracks", out / "set" / "features" / "plain"
    kill_when(out, lambda: len(list(tracks.glob("[!.]*.ogg"))) >= 2, "synth")
    kept = {p.name: p.stat().st_mtime_ns for p in tracks.glob("[!.]*.ogg")}
    for name in kept:  # what is there is whole
        audio, _ = soundfile.read(tracks / name)
        beats = np.loadtxt(out / "set" / "beats" / name.replace(".ogg", ".beats"))
        assert np.abs(audio).max() > 0.01 and beats[-1, 0] < len(audio) / 22050
    # a row is written every two seconds: what has none yet is rendered again
    table = out / "set" / "metadata.csv"
    named = {f"{r['id']}.ogg" for r in rows(table)} if table.exists() else set()
    assert named <= set(kept)
    kill_when(out, lambda: len(list(store.glob("tracks/[!.]*.npy"))) >= 3, "preprocess")
    now = {p.name: p.stat().st_mtime_ns for p in tracks.glob("[!.]*.ogg")}
    assert all(now[name] == kept[name] for name in named)
    assert {f"{r['id']}.ogg" for r in rows(table)} == set(now)
    assert not (out / "set" / ".scratch").exists()
    stored = {p: p.stat().st_mtime_ns for p in sorted(store.glob("tracks/[!.]*.npy"))}

    done = subprocess.run(
        ["bash", "scripts/pipeline.sh", str(out)],
        cwd=ROOT,
        env=size(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stages = "synth check preprocess train eval export beattrack".split()
    lines = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("pipeline: ")]
    assert lines == stages
    assert all(now[p.name] == p.stat().st_mtime_ns for p in tracks.glob("[!.]*.ogg"))
    arrays = sorted(store.glob("tracks/[!.]*.npy"))
    assert [p.stem for p in arrays] == sorted(r["id"] for r in rows(table))
    for path in arrays:
        frames = np.load(path, allow_pickle=False)
        assert np.isfinite(frames).all() and len(frames) > 400
    assert sum(p.stat().st_mtime_ns == stamp for p, stamp in stored.items()) >= len(stored) - 1
    _check_results(out, done.stdout)


def _check_results(out: Path, printed: str) -> None:
    log = rows(out / "runs" / "pipeline" / "metrics.csv")
    losses = [float(r["train/loss"]) for r in log if r["train/loss"]]
    assert len(losses) == 4 and np.mean(losses[2:]) < losses[0]
    (scores,) = (json.loads(p.read_text()) for p in (out / "results").rglob("scores.json"))
    folds = dict(line.split("\t") for line in (out / "set/folds.tsv").read_text().splitlines()[1:])
    held = [name for name, fold in folds.items() if fold == "0"]
    assert scores["data"]["tracks"] == len(held) >= 2
    assert not scores["data"]["seen_in_training"]
    assert f"held-out tracks\n  beats             {scores['live']['beat_f']:.2f}" in printed
    assert (out / "song.beats").exists() and (out / "pipeline.onnx").stat().st_size > 10_000
    assert f"{out}/pipeline.onnx" in printed
