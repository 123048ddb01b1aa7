"""Several folds: which are trained, where, and what their test tracks say together."""

import csv
import dataclasses
import itertools
import json
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from beattrack.config import ConfigError, FeatureConfig
from beattrack_trainer.config import DataConfig, load_folds
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.preprocess import preprocess
from beattrack_trainer.training import folds
from beattrack_trainer.training.folds import aggregate, find_devices, train_folds
from beattrack_trainer.training.runs import Run
from beattrack_trainer.training.train import train
from helpers_trainer import write_set

WORDS = ("model=tcn dim=16 depth=2 steps=8 batch_size=1 frames=200 warmup_steps=2 threads=1 "
         "validation_tracks=1 wandb=disabled pictures=0").split()  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("folds")
    write_set(base / "set", 12)
    # Every fold needs a track.
    rows = "".join(f"t{i:02d}\t{i % 8}\n" for i in range(12))
    (base / "set" / "folds.tsv").write_text("track\tfold\n" + rows)
    (data,) = open_data_sets(DataConfig(data=(str(base / "set"),)))
    preprocess(data, FeatureConfig())
    return base


def asked(base, *words, runs="runs"):
    return load_folds([f"data={base / 'set'}", f"runs_dir={base / runs}", *WORDS, *words])


class InThisProcess:
    """Stands for the process of a fold."""

    def __init__(self, settings, *_):
        self.returncode = None
        train(settings)

    def poll(self):
        self.returncode = 0
        return 0


def test_folds_are_trained_scored_and_shown(base, monkeypatch):
    started = []
    monkeypatch.setattr("beattrack_trainer.export.CHECK_S", 2.0)  # seconds of audio
    monkeypatch.setattr("beattrack_trainer.export.commit", lambda: "0" * 40)  # may change meanwhile
    monkeypatch.setattr(
        folds, "_start", lambda s, *_: (started.append(s.train.fold), InThisProcess(s))[1]
    )
    console = Console(record=True, width=140, stderr=True)
    result = train_folds(asked(base, "fold=[0,3]"), console)
    assert started == [0, 3]
    assert list(result["folds"]) == [0, 3]
    assert [result["folds"][f]["tracks"] for f in (0, 3)] == [2, 2]
    group = base / "runs" / result["group"]
    for fold in (0, 3):
        run = Run(base / "runs" / result["runs"][fold])
        assert run.finished and run.settings().train.group == result["group"]
        kept = json.loads((run.path / "test.json").read_text())
        # the test tracks of fold k are those that folds.tsv gives it
        assert sorted(kept["tracks"]) == [f"t{fold:02d}", f"t{fold + 8:02d}"]
    assert json.loads((group / "folds.json").read_text())["mean"] == result["mean"]
    rows = list(csv.DictReader((group / "folds.csv").open()))
    assert [r["fold"] for r in rows] == ["0", "3", "mean", "sd"]
    shown = console.export_text()
    assert "down F" in shown and "mean" in shown
    # The same command finds all done: nothing is trained nor scored again.
    monkeypatch.setattr("beattrack_trainer.evaluation.evaluate.score_items", None)
    again = train_folds(asked(base, "fold=[0,3]"), Console(stderr=True))
    assert started == [0, 3] and again["mean"] == result["mean"]


def test_folds_without_test_tracks_are_refused(base):
    with pytest.raises(ConfigError, match="no test tracks"):
        train_folds(asked(base, "fold=[0,8]"), Console(stderr=True))


def test_mean_and_deviation_over_folds():
    def fold(**scores):
        return {"mean": scores, "tracks": {"a": {}}, "skipped": {}}

    result = aggregate({1: fold(f=0.5, g=None), 0: fold(f=0.7, g=0.4)})
    assert list(result["folds"]) == [0, 1]
    assert result["mean"] == {"f": 0.6, "g": 0.4}
    assert result["sd"]["f"] == pytest.approx(0.1414, abs=1e-4) and result["sd"]["g"] is None


# What stands for ``trainer`` below: it says when it began and ended, and on which device.
STAND_IN = """
import json, os, sys, time
settings = sys.argv[-1]
fold = int(open(settings).read().split("fold: ")[1].split()[0])
began = time.monotonic()
print("hello from", fold, file=sys.stderr, flush=True)
time.sleep(0.6)
json.dump([os.environ.get("CUDA_VISIBLE_DEVICES"), began, time.monotonic()],
          open(settings + ".log", "w"))
sys.exit(1 if fold == 5 else 0)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(folds, "COMMAND", [sys.executable, str(script)])
    return script


def logs(folder):
    return {int(f.name[5]): json.loads(f.read_text()) for f in Path(folder).glob("*.log")}


def jobs_of(base, *words, runs):
    return {
        s.train.fold: dataclasses.replace(
            s, train=dataclasses.replace(s.train, run_id=f"r{s.train.fold}")
        )
        for s in asked(base, *words, runs=runs)
    }


def test_one_fold_on_each_gpu_side_by_side(base, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(folds, "find_devices", lambda accelerator: ["2", "GPU-7"])
    console = Console(record=True, stderr=True, width=200)
    failed = folds._train_all(
        jobs_of(base, "fold=[0,1,2,5]", runs="gpus"), tmp_path, console
    )  # fmt: skip
    assert failed == [5]
    seen = logs(tmp_path)
    assert set(seen) == {0, 1, 2, 5}
    assert {seen[0][0], seen[1][0]} == {"2", "GPU-7"}
    assert seen[0][2] > seen[1][1] and seen[1][2] > seen[0][1]  # at the same time
    for device in ("2", "GPU-7"):  # never two on one device
        spans = sorted(v[1:] for v in seen.values() if v[0] == device)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    time.sleep(0.1)
    assert "fold 1: hello from 1" in console.export_text()


def test_on_the_cpu_one_after_another(base, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(folds, "find_devices", lambda accelerator: [])
    assert folds._train_all(jobs_of(base, "fold=[0,1]", runs="cpu"), tmp_path, Console()) == []
    seen = logs(tmp_path)
    assert seen[0][2] <= seen[1][1]


def test_ctrl_c_stops_all(base, tmp_path, monkeypatch):
    script = tmp_path / "long.py"
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(folds, "COMMAND", [sys.executable, str(script)])
    monkeypatch.setattr(folds, "find_devices", lambda accelerator: ["0", "1"])
    processes = []
    plain = folds._start

    def start(*words):
        processes.append(plain(*words))
        return processes[-1]

    sleep = time.sleep

    def interrupt(seconds):
        monkeypatch.setattr(folds.time, "sleep", sleep)
        raise KeyboardInterrupt

    monkeypatch.setattr(folds, "_start", start)
    monkeypatch.setattr(folds.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folds._train_all(jobs_of(base, "fold=[0,1,2]", runs="stop"), tmp_path, Console())
    assert len(processes) == 2 and all(p.poll() is not None for p in processes)


def test_cuda_visible_devices_is_respected(monkeypatch):
    monkeypatch.setattr(folds.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(folds.torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-1")
    assert find_devices("auto") == ["5", "GPU-1"]
    assert find_devices("cpu") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert find_devices("gpu") == ["0", "1", "2"]
