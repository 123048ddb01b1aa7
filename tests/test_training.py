"""The whole way of a model in small: audio with beats -> features -> network -> ONNX -> scores."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from beattrack.config import ConfigError, FeatureConfig
from beattrack_runtime import open_tracker
from beattrack_trainer.cli import app
from beattrack_trainer.config import DataConfig, load_settings
from beattrack_trainer.data.folders import open_data_sets
from beattrack_trainer.data.preprocess import preprocess
from beattrack_trainer.evaluation.evaluate import score_items
from beattrack_trainer.training.runs import Run
from beattrack_trainer.training.train import train
from flux_model import drum_loop
from helpers_trainer import write_set

FAST = ("model=tcn dim=16 depth=4 dropout=0.0 steps=60 batch_size=4 frames=500 warmup_steps=10 "
        "threads=1 validate_every=30 learning_rate=5e-3 average_decay=0.9").split()  # fmt: skip


def settings(base, *words, run="run"):
    places = [f"data={base / 'set'}", f"runs_dir={base}", f"run_id={run}"]
    return load_settings([*places, *FAST, *words])


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A data set in ``set`` and a run trained on it in ``run``."""
    base = tmp_path_factory.mktemp("training")
    write_set(base / "set", 12)
    (data,) = open_data_sets(DataConfig(data=(str(base / "set"),)))
    assert preprocess(data, FeatureConfig()).skipped == {}
    train(settings(base))
    return base


def test_training_learns(stage):
    note = json.loads((stage / "run" / "run.json").read_text())
    # 0.2 is what a constant answer reaches on these loops
    assert note["result"]["metrics"]["val/beat"] < 0.12
    assert note["parameters"] > 1000
    assert sum(note["tracks"].values()) == 12


def test_a_finished_run_loads_and_exports_and_tracks(stage):
    model = stage / "exports" / "run.onnx"
    words = ["export", str(stage / "run"), "--save-dir", str(model.parent), "--flux-mix", "0.5"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    audio, _ = drum_loop(12, 120)
    assert len(open_tracker(model).push(audio)) > 10
    (data,) = open_data_sets(DataConfig(data=(str(stage / "set"),)))
    scored = score_items(model, data.tracks())
    assert scored.mean()["beat_f"] > 0.6
    assert len(scored.rows) == 12 and not scored.skipped
    assert abs(scored.mean()["delay_ms"]) < 25


def test_run_of_other_settings_is_refused(stage):
    with pytest.raises(ConfigError, match="other settings"):
        train(settings(stage, "steps=61"))


def test_a_run_that_is_not_finished_does_not_load(tmp_path):
    with pytest.raises(ConfigError, match="is no run"):
        Run(tmp_path).load()


def test_a_checkpoint_is_never_executed(stage, tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    (tmp_path / "run.json").write_text((stage / "run" / "run.json").read_text())
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"weights\.pt"):
        Run(tmp_path).load()
    assert not (tmp_path / "boom").exists()


def test_a_finished_run_is_left_alone(stage):
    before = [(stage / "run" / n).read_bytes() for n in ("weights.pt", "run.json")]
    train(settings(stage))
    assert [(stage / "run" / n).read_bytes() for n in ("weights.pt", "run.json")] == before


def test_an_interrupted_run_goes_on_to_the_same_weights(stage, monkeypatch):
    from beattrack_trainer.training.excerpts import Excerpts

    words = ["steps=260", "batch_size=1", "frames=200", "warmup_steps=2", "validate_every=1000"]
    train(settings(stage, *words, run="whole"))
    asked = []
    plain = Excerpts.__getitem__

    def stopping(self, index):
        asked.append(self._indices[index])
        if len(asked) == 256:  # after the checkpoint at step 250
            raise RuntimeError("power failure")
        return plain(self, index)

    monkeypatch.setattr(Excerpts, "__getitem__", stopping)
    with pytest.raises(RuntimeError, match="power failure"):
        train(settings(stage, *words, run="cut"))
    with pytest.raises(ConfigError, match="not finished"):
        Run(stage / "cut").load()
    asked.clear()
    train(settings(stage, *words, run="cut"))
    assert asked[0] == 250
    whole, cut = (Run(stage / n).load()[0].state_dict() for n in ("whole", "cut"))
    assert all(np.allclose(whole[k], cut[k], atol=1e-6) for k in whole)
