"""The whole way of a model in small: audio with beats -> features -> network -> ONNX -> scores."""

import errno
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack.model import build_model
from beattrack_runtime import open_tracker
from beattrack_trainer.config import DataConfig, load_settings
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.preprocess import preprocess
from beattrack_trainer.data.store import FeatureStore
from beattrack_trainer.evaluation.evaluate import score_items
from beattrack_trainer.training import checkpoints, module
from beattrack_trainer.training.checkpoints import read_checkpoint, standard_error
from beattrack_trainer.training.excerpts import unprepared
from beattrack_trainer.training.loggers import read_metrics
from beattrack_trainer.training.runs import Run, find_run
from beattrack_trainer.training.train import train
from beattrack_trainer.training.widen import widened
from flux_model import drum_loop
from helpers_trainer import write_set

FAST = ("model=tcn dim=16 depth=4 dropout=0.0 steps=60 batch_size=4 frames=500 warmup_steps=10 "
        "threads=1 validate_every=30 learning_rate=5e-3 average_decay=0.9 wandb=disabled workers=0 "
        "pictures=0").split()  # fmt: skip
# Quick, and not meant to learn anything.
TINY = "batch_size=1 frames=200 depth=2 warmup_steps=2 validation_tracks=1".split()


def settings(base, *words, run="run"):
    places = [f"data={base / 'set'}", f"runs_dir={base}", f"run_id={run}"]
    given = {w.split("=")[0]: w for w in (*places, *FAST, *words)}  # the last of each key
    return load_settings(list(given.values()))


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A data set in ``set`` and a run trained on it in ``run``."""
    base = tmp_path_factory.mktemp("training")
    write_set(base / "set", 12)
    (data,) = open_data_sets(DataConfig(data=(str(base / "set"),)))
    assert preprocess(data, FeatureConfig()).skipped == {}
    train(settings(base, "pictures=1"))
    return base


def weights(base, run):
    return Run(base / run).load()[0].state_dict()


def same(first, second, atol=1e-6):
    return all(np.allclose(first[k], second[k], atol=atol) for k in first)


def test_training_learns(stage):
    note = json.loads((stage / "run" / "run.json").read_text())
    # 0.2 is what a constant answer reaches on these loops
    assert note["result"]["metrics"]["val/beat"] < 0.12
    assert note["result"]["metrics"]["val/beat_f"] > 0.8
    assert note["parameters"] > 1000
    assert sum(note["tracks"].values()) == 12


def test_a_run_leaves_everything_in_its_folder(stage):
    run = stage / "run"
    rows = read_metrics(run / "metrics.csv")
    assert [r["step"] for r in rows] == [25, 30, 50, 60]
    assert {"train/loss", "learning_rate", "frames_per_second"} <= rows[0].keys()
    assert {"val/f", "val/loss"} <= rows[1].keys()
    pictures = sorted(p.name for p in (run / "figures").iterdir())
    assert pictures == ["activations-000030.png", "activations-000060.png", "curves.png"]
    assert all(
        (run / "figures" / p).read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for p in pictures
    )
    (start,) = json.loads((run / "environment.json").read_text())
    assert start["packages"]["torch"] and start["command"]
    assert "validation: F" in (run / "log.txt").read_text()
    again = load_settings([], run / "settings.yaml")
    assert again == Run(run).settings() == settings(stage, "pictures=1")
    assert not list(run.glob(".*[0-9]"))  # no temporary file is left


def test_a_finished_run_loads_and_exports_and_tracks(stage):
    from beattrack_trainer.export import ExportSettings, write_onnx

    model = stage / "m.onnx"
    write_onnx(Run(stage / "run"), model, ExportSettings(flux_mix=0.5), None)
    audio, _ = drum_loop(12, 120)
    assert len(open_tracker(model).push(audio)) > 10
    (data,) = open_data_sets(DataConfig(data=(str(stage / "set"),)))
    scored = score_items(model, data.tracks()[::3])
    assert scored.mean()["beat_f"] > 0.6
    assert len(scored.rows) == 4 and not scored.skipped
    assert abs(scored.mean()["delay_ms"]) < 25


def test_run_of_other_settings_is_refused(stage):
    with pytest.raises(ConfigError, match="other settings"):
        train(settings(stage, "steps=61"))


def test_tracks_that_are_not_preprocessed_are_told_of(tmp_path, capsys):
    write_set(tmp_path / "set", 12)
    (data,) = open_data_sets(DataConfig(data=(str(tmp_path / "set"),)))
    preprocess(data, FeatureConfig())
    chosen = settings(tmp_path, *TINY, "steps=1", "fold=8")
    assert unprepared(chosen) == {}
    store = FeatureStore.open(data.feature_dir(FeatureConfig()))
    names = store.names()
    store.remove(names[0])  # as if preprocessing had been stopped
    store.remove(names[1])
    store.write_skipped({names[1]: "it is damaged"})
    train(chosen)
    words = " ".join(capsys.readouterr().err.split())
    assert "set: tracks without features yet, which are not trained on: 1;" in words


def test_a_finished_run_is_left_alone(stage):
    before = [(stage / "run" / n).read_bytes() for n in ("weights.pt", "run.json")]
    train(settings(stage))
    assert [(stage / "run" / n).read_bytes() for n in ("weights.pt", "run.json")] == before


def fake_scores(monkeypatch, *values):
    """Make the n-th validation (of one track each) find the n-th F."""
    left = list(values)
    monkeypatch.setattr(module, "f_measures", lambda heard: (left.pop(0),) * 2)


def test_the_best_weights_are_what_is_kept(stage, monkeypatch):
    fake_scores(monkeypatch, 0.2, 0.9, 0.1, 0.3)
    # 7 is no multiple of 2: the end is validated too
    train(settings(stage, *TINY, "steps=7", "validate_every=2", run="best"))
    folder = stage / "best"
    best, last = (read_checkpoint(folder / f"{n}.ckpt") for n in ("best", "last"))
    assert (best["global_step"], last["global_step"]) == (4, 7)
    kept = weights(stage, "best")
    assert same(kept, {k.removeprefix("network."): v for k, v in best["state_dict"].items()}, 0)
    assert not same(kept, {k.removeprefix("network."): v for k, v in last["state_dict"].items()})
    result = Run(folder).note()["result"]
    assert (result["weights"], result["step"]) == ("best", 4)
    assert result["metrics"]["val/f"] == pytest.approx(0.9)
    steps = [r["step"] for r in read_metrics(folder / "metrics.csv") if "val/f" in r]
    assert steps == [2, 4, 6, 7]


def test_the_last_validation_can_be_the_best(stage, monkeypatch):
    fake_scores(monkeypatch, 0.2, 0.9)
    train(settings(stage, *TINY, "steps=7", "validate_every=5", run="end"))
    assert Run(stage / "end").note()["result"]["step"] == 7


def test_of_validations_that_chance_tells_apart_the_last_is_kept(stage, monkeypatch):
    fake_scores(monkeypatch, 0.9, 0.5, 0.6, 0.78, 0.6, 0.2)  # two tracks at each validation
    words = [*TINY, "validation_tracks=2", "steps=6", "validate_every=2", "fold=2"]
    train(settings(stage, *words, run="chance"))
    result = Run(stage / "chance").note()["result"]
    assert (result["step"], result["metrics"]["val/f"]) == (4, pytest.approx(0.69))
    assert "0.6900, the last within a standard error of the highest, 0.7000" in result["why"]


def test_a_standard_error_is_of_the_difference_track_by_track():
    assert standard_error([0.9, 0.5, 0.1], [0.8, 0.4, 0.0]) == pytest.approx(0, abs=1e-9)
    assert standard_error([1.0, 0.5], [0.5, 0.5]) == pytest.approx(0.25)
    assert standard_error([0.5], [0.1]) == standard_error([], [0.5, 0.6]) == 0


def test_without_a_better_validation_it_stops_early(stage, monkeypatch):
    fake_scores(monkeypatch, 0.5, 0.6, 0.4, 0.6, *[0.9] * 9)
    train(settings(stage, *TINY, "steps=20", "validate_every=2", "patience=2", run="early"))
    assert read_checkpoint(stage / "early" / "last.ckpt")["global_step"] == 8
    assert Run(stage / "early").note()["result"]["step"] == 4


def test_all_data_keeps_the_last_averaged_weights_and_says_so(stage):
    train(settings(stage, *TINY, "steps=6", "fold=8", "patience=1", run="all"))
    note = Run(stage / "all").note()
    assert note["tracks"] == {"training": 12, "validation": 0, "test": 0}
    assert note["result"]["weights"] == "last" and "all tracks" in note["result"]["why"]
    last = read_checkpoint(stage / "all" / "last.ckpt")
    kept = {k.removeprefix("network."): v for k, v in last["state_dict"].items()}
    assert same(weights(stage, "all"), kept, 0)
    newest = {
        k.removeprefix("network."): v for k, v in last["current_model_state"].items()
    }  # at the end the average is copied over the model
    assert same(kept, newest, 0)


def test_training_can_begin_with_other_weights(stage, tmp_path):
    words = [*TINY, "learning_rate=1e-12", "fold=8", "steps=2", "average_decay=0.5"]
    train(settings(stage, *TINY, "steps=3", "fold=8", run="first"))
    train(settings(stage, *words, f"init={stage / 'first'}", run="second"))
    assert same(weights(stage, "first"), weights(stage, "second"))
    train(settings(stage, *words, f"init={stage / 'first' / 'weights.pt'}", run="third"))
    assert same(weights(stage, "first"), weights(stage, "third"))
    train(settings(stage, *words, run="fresh"))
    assert not same(weights(stage, "first"), weights(stage, "fresh"))
    with pytest.raises(ConfigError, match="does not fit the network that is to be trained") as odd:
        train(settings(stage, *words, "kernel=3", f"init={stage / 'first'}", run="other"))
    assert re.search(r"of another network, whose [\w.]+ is \[.*\] instead of \[", str(odd.value))
    train(settings(stage, *words, "dim=48", f"init={stage / 'first'}", run="wide"))
    x = torch.randn(1, 1, Run(stage / "first").load()[0].config.bins, 300)
    first, wide = (Run(stage / run).load()[0](x) for run in ("first", "wide"))
    assert all(torch.allclose(first[k], wide[k], atol=1e-4) for k in first)
    with pytest.raises(ConfigError, match="There is no run 'nowhere'"):
        train(settings(stage, *words, "init=nowhere", run="none"))
    bad = tmp_path / "bad.pt"
    with pytest.raises(ConfigError, match=r"init=.*bad\.pt is not possible: there is no such file"):
        train(settings(stage, *words, f"init={bad}", run="bad"))
    bad.write_bytes(b"PK")
    with pytest.raises(ConfigError, match="does not fit"):
        train(settings(stage, *words, f"init={bad}", run="bad"))
    assert not [run for run in ("other", "none", "bad") if (stage / run).exists()]


def test_a_gpu_that_is_not_here_is_told_before_there_is_a_folder(stage, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="accelerator=gpu is not possible: torch sees no GPU"):
        train(settings(stage, *TINY, "accelerator=gpu", run="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="devices=3 is not possible: torch sees 2"):
        train(settings(stage, *TINY, "accelerator=gpu", "devices=3", run="gpu"))
    assert not (stage / "gpu").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_wider_network_says_what_the_narrow_one_said_and_can_learn_more(channels):
    narrow, wide = (
        build_model(ModelConfig(bins=24, channels=channels, model="tcn", dim=d, depth=3))
        for d in (16, 48)
    )
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    x = torch.randn(2, channels, 24, 90)
    before, after = narrow.eval()(x), wide.eval()(x)
    assert all(torch.allclose(before[k], after[k], atol=1e-5) for k in before)
    sum(v.square().mean() for v in after.values()).backward()
    grown = wide.trunk.blocks[0].linear.weight.grad[:16, 24:]
    assert grown.abs().min() > 0  # silent new units are not dead ones
    assert widened(wide.state_dict(), narrow) is None


def test_a_loss_that_is_no_number_stops_in_a_sentence(stage, monkeypatch):
    plain = module.all_losses

    def broken(out, batch, config):
        return {k: v * float("nan") for k, v in plain(out, batch, config).items()}

    monkeypatch.setattr(module, "all_losses", broken)
    with pytest.raises(ValueError, match=r"no number any more at step 3; try a lower learning"):
        train(settings(stage, *TINY, "steps=6", "checkpoint_every=3", run="nan"))
    assert not (stage / "nan" / "last.ckpt").exists()


def spawned():
    """Processes that start quickly, from one that has imported everything and runs nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["beattrack_trainer.training.train"])
    return context


def test_a_run_killed_again_and_again_ends_at_the_same_curve(stage, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [*TINY, "steps=75", "dropout=0.2", "checkpoint_every=7", "validate_every=15"]
    context, rng = spawned(), random.Random(4)
    process = context.Process(target=train, args=(settings(stage, *words, run="whole"),))
    process.start()
    process.join()  # also waits for the server's imports
    assert process.exitcode == 0
    cut = settings(stage, *words, run="cut")
    metrics, stops = stage / "cut" / "metrics.csv", []
    for number in range(9):
        process = context.Process(target=train, args=(cut,))
        process.start()
        reached = stops[-1] if stops else 0
        goal = reached + rng.randint(8, 30)
        while process.is_alive() and _last_step(metrics) < goal:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        if not process.is_alive():
            break
        os.kill(process.pid, signal.SIGTERM if number % 3 == 2 else signal.SIGKILL)
        process.join()
        stops.append(_last_step(metrics))
    else:
        pytest.fail("it never came to its end")
    assert len(stops) >= 2, "it was not killed often enough to show anything"
    assert same(weights(stage, "whole"), weights(stage, "cut"))
    whole, again = (read_metrics(stage / n / "metrics.csv") for n in ("whole", "cut"))
    assert [r["step"] for r in whole] == [r["step"] for r in again]
    for one, other in zip(whole, again, strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"frames_per_second"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=1e-6), (one["step"], key)
    notes = [Run(stage / n).note()["result"] for n in ("whole", "cut")]
    assert notes[0]["step"] == notes[1]["step"]
    starts = json.loads((stage / "cut" / "environment.json").read_text())
    assert len(starts) == len(stops) + 1


def _last_step(path):
    rows = read_metrics(path)
    return int(rows[-1]["step"]) if rows else 0


def test_a_damaged_checkpoint_falls_back_to_the_one_before(stage, monkeypatch):
    words = [*TINY, "steps=9", "checkpoint_every=2", "validate_every=100"]
    train(settings(stage, *words, run="intact"))
    stopping(monkeypatch, 8)
    with pytest.raises(RuntimeError, match="power failure"):
        train(settings(stage, *words, run="torn"))
    monkeypatch.undo()
    folder = stage / "torn"
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == 6
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "previous.ckpt").rename(folder / "kept")
    with pytest.raises(ConfigError, match=r"last\.ckpt in .* cannot be read; remove"):
        train(settings(stage, *words, run="torn"))
    (folder / "kept").rename(folder / "previous.ckpt")
    train(settings(stage, *words, run="torn"))
    assert same(weights(stage, "intact"), weights(stage, "torn"))


def stopping(monkeypatch, count):
    """Let the power fail when the ``count``-th training excerpt is asked for."""
    plain, asked = module.BeatModule.training_step, []

    def step(self, batch, index):
        asked.append(index)
        if len(asked) == count:
            raise RuntimeError("power failure")
        return plain(self, batch, index)

    monkeypatch.setattr(module.BeatModule, "training_step", step)


def test_a_run_killed_after_its_end_only_writes_its_weights(stage, monkeypatch):
    words = [*TINY, "steps=4", "validate_every=2", "patience=1"]
    train(settings(stage, *words, run="ended"))
    before = weights(stage, "ended")
    (stage / "ended" / "weights.pt").unlink()
    stopping(monkeypatch, 1)  # nothing is trained any more
    train(settings(stage, *words, run="ended"))
    assert same(before, weights(stage, "ended"), 0)


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(stage, monkeypatch):
    words = [*TINY, "steps=6", "checkpoint_every=2", "validate_every=100"]
    plain, saved = torch.save, []

    def save(values, file):
        saved.append(1)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(values, file)

    monkeypatch.setattr(checkpoints.torch, "save", save)
    chosen = settings(stage, *words, run="full")
    file = stage / "full.yaml"
    file.write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in chosen.to_dict().items()))
    done = run_cli("train", "--config", str(file))
    place = stage / "full" / "last.ckpt"
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == f"error: Cannot use '{place}': No space left on device."
    assert "Traceback" not in done.output
    assert read_checkpoint(stage / "full" / "last.ckpt")["global_step"] == 2
    assert not list((stage / "full").glob(".last*"))
    monkeypatch.undo()
    train(chosen)
    assert Run(stage / "full").finished


def run_cli(*words):
    """Run a command as ``main`` does, in this process; returns exit code and output."""
    from types import SimpleNamespace

    from beattrack_trainer import cli
    from beattrack_trainer.commands.common import console

    before = sys.argv
    sys.argv = ["trainer", *words]
    try:
        with console.capture() as caught:
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
    finally:
        sys.argv = before
    return SimpleNamespace(exit_code=code, output=caught.get())


def test_a_folder_that_cannot_be_written_is_one_sentence(stage):
    (stage / "file").write_text("")
    words = [f"data={stage / 'set'}", f"runs_dir={stage / 'file'}", *FAST]
    done = run_cli("train", *words)
    assert done.exit_code == 1 and "Not a directory" in done.output
    assert run_cli("train", "stepz=3").exit_code == 2


def test_two_processes_do_not_train_one_run(stage):
    run = Run(stage / "busy")
    run.path.mkdir()
    with run.locked(), pytest.raises(ConfigError, match="another process"):
        train(settings(stage, *TINY, run="busy"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is no run"),
        ("{", "damaged"),
        ("[]", "not the note"),
        ('{"settings": 1, "model": {}, "tracks": {}}', "not the note"),
        ('{"settings": {"stepz": 1}, "model": {}, "tracks": {}}', "another version"),
        ('{"settings": {"steps": "x"}, "model": {}, "tracks": {}}', "another version"),
        ('{"settings": {}, "model": {"dim": 999999}, "tracks": {}}', "no network"),
        ('{"settings": {}, "model": {"dim": 32}, "tracks": {}}', "does not fit"),
        ('{"settings": {}, "model": {}, "tracks": {}, "x": ' + "[" * 50000, "damaged"),
    ],
)
def test_a_hostile_note_is_refused_in_a_sentence(stage, tmp_path, text, says):
    (tmp_path / "weights.pt").write_bytes((stage / "run" / "weights.pt").read_bytes())
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    run = Run(tmp_path)
    with pytest.raises(ConfigError, match=says) as caught:
        run.settings() if says == "another version" else run.load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 3000, -1])
@pytest.mark.filterwarnings("error")
def test_damaged_weights_are_refused_in_a_sentence(stage, tmp_path, keep):
    (tmp_path / "run.json").write_bytes((stage / "run" / "run.json").read_bytes())
    (tmp_path / "weights.pt").write_bytes((stage / "run" / "weights.pt").read_bytes()[:keep])
    with pytest.raises(ConfigError) as caught:
        Run(tmp_path).load()
    assert str(caught.value) == (
        f"'{tmp_path}/weights.pt' does not fit run.json: it is damaged or holds no weights; copy "
        "the run anew or train it again."
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1, 2], "holds no weights"),
        ({"epoch": 3}, "holds no weights"),
        ({"a": torch.ones(2)}, "of another network, without"),
        ({"trunk.merge.weight": torch.ones(())}, "of another network"),
    ],
)
def test_weights_of_anything_else_are_refused(stage, tmp_path, values, says):
    torch.save(values, tmp_path / "x.pt")
    with pytest.raises(ConfigError, match=says):
        train(settings(stage, *TINY, f"init={tmp_path / 'x.pt'}", run="alien"))
    assert not (stage / "alien").exists()


def test_a_damaged_note_is_not_of_another_version(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="^'[^']*' is damaged: it is not JSON.$"):
        Run(tmp_path).settings()


def test_a_checkpoint_is_never_executed(stage, tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    (tmp_path / "run.json").write_text((stage / "run" / "run.json").read_text())
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"weights\.pt"):
        Run(tmp_path).load()
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps(Bomb()))
    assert read_checkpoint(tmp_path / "last.ckpt") is None
    assert not (tmp_path / "boom").exists()


def test_a_run_that_is_not_finished_does_not_load(stage, tmp_path):
    (tmp_path / "run.json").write_bytes((stage / "run" / "run.json").read_bytes())
    with pytest.raises(ConfigError, match="not finished"):
        Run(tmp_path).load()
    with pytest.raises(ConfigError, match="no finished run"):
        find_run(None, tmp_path)


def test_two_processes_see_what_one_would_with_twice_the_batch(stage):
    # Without tempo, whose mean is over frames that differ in number, and without dropout.
    words = [*TINY, "steps=4", "validate_every=2", "validation_tracks=2", "loss_weight_tempo=0"]
    train(settings(stage, *words, "batch_size=2", run="one"))
    chosen = settings(stage, *words, "devices=2", "accelerator=cpu", run="two").to_dict()
    file = stage / "two.yaml"
    file.write_text("\n".join(f"{k}: {json.dumps(v)}" for k, v in chosen.items()))
    trainer = Path(sys.executable).with_name("trainer")
    done = subprocess.run(
        [trainer, "train", "--config", file], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished") == 1, done.stderr
    state = read_checkpoint(stage / "two" / "last.ckpt")
    assert state["ExcerptData"]["used"] == 8
    assert same(weights(stage, "one"), weights(stage, "two"), 1e-5)
    one, two = (read_metrics(stage / n / "metrics.csv") for n in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        assert first["val/f"] == pytest.approx(second["val/f"], abs=1e-3)
        assert first["val/beat"] == pytest.approx(second["val/beat"], rel=1e-3)
