"""The whole way of a model in small: audio with beats -> features -> network -> ONNX -> scores."""

import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from beattrack.config import ConfigError, FeatureConfig, ModelConfig
from beattrack_runtime import open_tracker
from beattrack_trainer.augment import colour, stretch
from beattrack_trainer.cli import app
from beattrack_trainer.config import TrainConfig, parse_overrides
from beattrack_trainer.evaluate import evaluate
from beattrack_trainer.preprocess import find_tracks, preprocess, read_beats
from beattrack_trainer.scores import score
from beattrack_trainer.targets import pulse_targets, tempo_targets
from beattrack_trainer.train import load_run, train
from flux_model import drum_loop

SMALL = ModelConfig(model="tcn", dim=16, depth=4, dropout=0.0)
FAST = TrainConfig(steps=60, batch_size=4, frames=500, warmup_steps=10, threads=1,
                   validation_share=0.3, validate_every=30, learning_rate=5e-3,
                   average_decay=0.9)  # fmt: skip


def write_set(folder, count, seconds=12.0):
    (folder / "tracks").mkdir(parents=True)
    (folder / "beats").mkdir()
    for i in range(count):
        audio, beats = drum_loop(seconds, 90 + 7 * i, start_s=0.1 * (i % 5))
        soundfile.write(folder / "tracks" / f"t{i:02d}.flac", audio, 22050)
        lines = [f"{t:.4f}\t{n % 4 + 1}" for n, t in enumerate(beats)]
        (folder / "beats" / f"t{i:02d}.beats").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A trained run: (data set, feature store, run folder)."""
    base = tmp_path_factory.mktemp("training")
    write_set(base / "set", 12)
    assert preprocess(base / "set", base / "store", FeatureConfig()) == []
    train([base / "store"], base / "run", SMALL, FAST)
    return base


def test_training_learns(stage):
    note = json.loads((stage / "run" / "run.json").read_text())
    # 0.2 is what a constant answer reaches on these loops
    assert note["result"]["metrics"]["val/beat"] < 0.12
    assert note["parameters"] > 1000
    assert note["tracks"]["training"] + note["tracks"]["validation"] == 12


def test_a_finished_run_loads_and_exports_and_tracks(stage):
    model, out = stage / "m.onnx", stage / "scores.json"
    done = CliRunner().invoke(app, ["export", str(stage / "run"), str(model), "--flux-mix", "0.5"])
    assert done.exit_code == 0, done.output
    audio, _ = drum_loop(12, 120)
    assert len(open_tracker(model).push(audio)) > 10
    result = evaluate(model, stage / "set", out)
    assert result["mean"]["beat_f"] > 0.6
    assert json.loads(out.read_text())["tracks"].keys() == result["tracks"].keys()
    assert abs(result["mean"]["delay_ms"]) < 25


def test_run_of_other_settings_is_refused(stage):
    with pytest.raises(ConfigError, match="other settings"):
        train([stage / "store"], stage / "run", SMALL, TrainConfig(steps=61))


def test_store_of_other_settings_is_refused(stage):
    with pytest.raises(ValueError, match="other feature settings"):
        preprocess(stage / "set", stage / "store", FeatureConfig(kind="flux"))


def test_a_run_that_is_not_finished_does_not_load(tmp_path):
    with pytest.raises(ConfigError, match="no finished run"):
        load_run(tmp_path)


def test_a_checkpoint_is_never_executed(stage, tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    (tmp_path / "run.json").write_text((stage / "run" / "run.json").read_text())
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ConfigError, match=r"weights\.pt"):
        load_run(tmp_path)
    assert not (tmp_path / "boom").exists()


def test_a_finished_run_is_left_alone(stage):
    before = [(stage / "run" / n).read_bytes() for n in ("weights.pt", "run.json")]
    train([stage / "store"], stage / "run", SMALL, FAST)
    assert [(stage / "run" / n).read_bytes() for n in ("weights.pt", "run.json")] == before


def test_an_interrupted_run_goes_on_to_the_same_weights(stage, tmp_path, monkeypatch):
    from beattrack_trainer import train as module
    from beattrack_trainer.datasets import Excerpts

    config = TrainConfig(steps=260, batch_size=1, frames=200, warmup_steps=2, threads=1,
                         validation_share=0.3, validate_every=1000)  # fmt: skip
    train([stage / "store"], tmp_path / "whole", SMALL, config)
    asked = []
    plain = Excerpts.__getitem__

    def stopping(self, index):
        asked.append(self._indices[index])
        if len(asked) == 256:  # after the checkpoint at step 250
            raise RuntimeError("power failure")
        return plain(self, index)

    monkeypatch.setattr(module.Excerpts, "__getitem__", stopping)
    with pytest.raises(RuntimeError, match="power failure"):
        train([stage / "store"], tmp_path / "cut", SMALL, config)
    with pytest.raises(ConfigError, match="no finished run"):
        load_run(tmp_path / "cut")
    asked.clear()
    train([stage / "store"], tmp_path / "cut", SMALL, config)
    assert asked[0] == 250
    whole, cut = (load_run(tmp_path / n)[0].state_dict() for n in ("whole", "cut"))
    assert all(np.allclose(whole[k], cut[k], atol=1e-6) for k in whole)


def test_preprocess_skips_what_is_broken_and_says_so(tmp_path):
    write_set(tmp_path / "set", 4)
    (tmp_path / "set" / "tracks" / "t00.flac").write_bytes(b"not audio")
    (tmp_path / "set" / "beats" / "t01.beats").write_text("one two\n")
    (tmp_path / "set" / "beats" / "t02.beats").write_text("2.0 1\n1.0 2\n")
    complaints = preprocess(tmp_path / "set", tmp_path / "store", FeatureConfig())
    assert sorted(c.split(":")[0] for c in complaints) == ["t00", "t01", "t02"]
    assert [f.name for f in (tmp_path / "store").glob("*.npz")] == ["t03.npz"]
    with np.load(tmp_path / "store" / "t03.npz") as data:
        assert data["frames"].dtype == np.float16


def test_folders_without_tracks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no audio"):
        find_tracks(tmp_path)


def test_beats_with_a_third_column_are_read(tmp_path):
    (tmp_path / "a.beats").write_text("0.5 1 1\n1.0 2 1\n")
    assert read_beats(tmp_path / "a.beats").tolist() == [[0.5, 1], [1.0, 2]]


def test_settings_are_words():
    model, config = parse_overrides(["model=tcn", "dim=48", "steps=10", "learning_rate=1e-4"])
    assert (model.model, model.dim, config.steps, config.learning_rate) == ("tcn", 48, 10, 1e-4)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["step=3"], "did you mean 'steps'"),
        (["model"], "key=value"),
        (["steps=many"], "steps"),
        (["steps=-5"], "steps"),
        (["sources=[bass"], "cannot be read"),
    ],
)
def test_bad_settings_are_named(words, says):
    with pytest.raises(ConfigError, match=says):
        parse_overrides(words)


def test_pulse_targets_stand_where_the_network_should_answer():
    target = pulse_targets(np.array([1.0]), 100, 50.0, delay=2)
    # 1.0 s is the boundary of frames 49 and 50; two frames later both are equally near
    assert target[[51, 52]] == pytest.approx([2 / 3, 2 / 3], abs=1e-6)
    assert target[[50, 53]] == pytest.approx([0, 0], abs=1e-6)
    assert target.sum() == pytest.approx(4 / 3, abs=1e-5)


def test_pulse_targets_outside_are_ignored():
    assert pulse_targets(np.array([-1.0, 99.0]), 50, 50.0, 2).sum() == 0


def test_tempo_targets():
    target = tempo_targets(np.arange(1, 9, 0.5), 600, 50.0, 300)
    assert (target[:75] == -1).all()  # before two beats are known
    assert (target[80:420] == 119).all()  # class k is k + 1 beats a minute
    assert (target[-50:] == -1).all()


def test_stretch_moves_time():
    frames = np.arange(100, dtype=np.float32)[:, None, None]
    fast = stretch(frames, 1.5, 60, delay=2)
    # frame 10 speaks of time 8.5; 1.5 times as fast that is 12.75, of which frame 14.25 spoke
    assert fast[10, 0, 0] == pytest.approx(14.25)
    assert stretch(frames, 1.0, 60, delay=2).shape == (60, 1, 1)


def test_colour_keeps_shape_and_range():
    rng = np.random.default_rng(0)
    frames = rng.random((200, 2, 94), dtype=np.float32)
    before = frames.copy()
    for seed in range(20):
        out = colour(frames, 12, FeatureConfig(), np.random.default_rng(seed))
        assert out.shape == frames.shape
        assert np.isfinite(out).all()
        assert out.min() >= 0
    assert np.array_equal(frames, before)


def test_scores_of_perfect_and_absent_beats():
    beats = np.column_stack([np.arange(0, 30, 0.5), np.tile([1, 2, 3, 4], 15)])
    events = np.column_stack([beats, beats[:, 0] + 0.01])
    good = score(beats, events)
    assert (good.beat_f, good.cmlt, good.amlt, good.downbeat_f) == (1, 1, 1, 1)
    assert good.delay_ms == pytest.approx(10)
    none = score(beats, np.empty((0, 3)))
    assert (none.beat_f, none.cmlt) == (0, 0)
    assert none.to_dict()["delay_ms"] is None


def test_late_reports_lower_the_emitted_score_alone():
    beats = np.column_stack([np.arange(0, 30, 0.5), np.tile([1, 2, 3, 4], 15)])
    late = score(beats, np.column_stack([beats, beats[:, 0] + 0.1]))
    assert late.beat_f == 1
    assert late.beat_f_emitted == 0
