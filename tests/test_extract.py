"""``trainer export``: four files, checked on real audio before they appear."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import beattrack_trainer.export as extract
from beattrack.activations import Activations
from beattrack.config import ConfigError, FeatureConfig
from beattrack.export import ExportError
from beattrack_runtime.onnx_model import OnnxModel
from beattrack_trainer.card import model_card
from beattrack_trainer.cli import app
from beattrack_trainer.config import load_settings
from flux_model import drum_loop
from helpers_run import RUN_ID, exported, make_run


def test_the_files_of_an_export():
    run, files = exported()
    assert [f.name for f in files] == [
        f"{RUN_ID}.{end}" for end in ("onnx", "md", "weights.pt", "settings.yaml")
    ]
    assert sorted(files[0].parent.iterdir()) == sorted(files)  # nothing else is left
    assert files[2].read_bytes() == (run.path / "weights.pt").read_bytes()
    again = load_settings([], files[3])  # settings.yaml is what trainer train --config reads
    assert again == run.settings()
    model = OnnxModel(files[0])
    assert model.config.flux_mix == 0.9
    assert model.provenance["run"] == RUN_ID
    assert model.provenance["data_licence"] == "<b>CC BY</b>"


def test_the_card_says_what_the_model_is():
    card = exported()[1][1].read_text()
    for words in ("# Model card: tiny-run.onnx", "1,234 parameters", "learned; 6 training", "CC BY",
                  "10 steps", "flux_mix 0.9", "30 s of relaxation_piece.ogg: the same events",
                  "Not evaluated yet: `trainer eval tiny-run`"):  # fmt: skip
        assert words in card, words


def test_the_command_tracks_with_the_exported_file(tmp_path):
    audio, beats = drum_loop(12, 120)
    soundfile.write(tmp_path / "song.wav", audio, 22050)
    words = [sys.executable, "-m", "beattrack_runtime", "--model", str(exported()[1][0]), "--file",
             str(tmp_path / "song.wav"), "--beats", str(tmp_path / "song.beats")]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.loadtxt(tmp_path / "song.beats")[:, 0]
    hit = [np.abs(found - b).min() < 0.07 for b in beats[6:]]
    assert np.mean(hit) > 0.9


def test_the_command_says_what_is_missing(tmp_path):
    done = CliRunner().invoke(app, ["export", "--runs-dir", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    done = CliRunner().invoke(app, ["export", "none", "--runs-dir", str(tmp_path)])
    assert isinstance(done.exception, ConfigError) and "none" in str(done.exception)


def test_the_card_quotes_scores_of_this_very_file_alone(tmp_path):
    run, files = exported()
    model = OnnxModel(files[0])
    live = dict.fromkeys(("beat_f", "beat_f_emitted", "cmlt", "amlt", "downbeat_f"), 0.125)
    about = {"run": RUN_ID, "network": model.config.to_dict(), "decoder": model.decoder.to_dict(),
             "provenance": model.provenance}  # fmt: skip
    data = {"name": "gtzan", "part": "all", "tracks": 7, "seen_in_training": False}
    changes = {
        "this": {},
        "another mix": {"network": about["network"] | {"flux_mix": 0.1}},
        "other weights": {"provenance": {"weights_sha256": "0"}},
        "another run": {"run": "x"},
    }
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        found = {"model": about | change, "data": data | {"name": name}, "live": live}
        (tmp_path / name / "scores.json").write_text(json.dumps(found))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "scores.json").write_text("{")
    card = model_card(run, model, 1000, "nothing", tmp_path)
    assert "| this, all | 7 | 0.125 |" in card
    assert not [name for name in list(changes)[1:] if name in card]


class _Off:
    """The exported model as it would be if one of its outputs were wrong."""

    def __init__(self, path: Path) -> None:
        self._model = OnnxModel(path)
        self.features, self.decoder = self._model.features, self._model.decoder
        self.latency_frames = self._model.latency_frames
        self.reset = self._model.reset
        self.error = 2e-4

    def step(self, frames):
        said = self._model.step(frames)
        return Activations(said.beat + np.float32(self.error), said.downbeat, said.tempo)


def test_a_model_that_differs_on_real_audio_is_not_written(tmp_path, monkeypatch):
    run, files = exported()
    before = files[0].read_bytes()
    samples, song = extract.check_audio(FeatureConfig(), None)
    assert song == "relaxation_piece.ogg" and len(samples) == 30 * 22050
    network = extract._mix(run.load()[0], 0.9)
    samples = samples[: 5 * 22050]
    assert extract.check_parity(network, files[0], samples) <= 1e-4
    monkeypatch.setattr(extract, "OnnxModel", _Off)
    with pytest.raises(ExportError, match="blocks of 1 frames differs from torch"):
        extract.check_parity(network, files[0], samples)

    def copy(network, features, decoder, path, provenance):
        shutil.copyfile(files[0], path)

    monkeypatch.setattr(extract, "export_onnx", copy)
    with pytest.raises(ExportError, match="nothing was written"):
        extract.export_run(
            run, files[0].parent, extract.ExportSettings(flux_mix=0.9), None, tmp_path
        )
    assert files[0].read_bytes() == before
    assert len(list(files[0].parent.iterdir())) == 4


def test_other_events_are_refused_though_probabilities_agree(monkeypatch):
    run, files = exported()
    samples = extract.check_audio(FeatureConfig(), None)[0]
    network = extract._mix(run.load()[0], 0.9)
    monkeypatch.setattr(extract, "TIME_TOLERANCE_S", -1.0)
    with pytest.raises(ExportError, match="other beats"):
        extract.check_parity(network, files[0], samples)


def test_the_audio_of_the_check(tmp_path, monkeypatch):
    features = FeatureConfig()
    with pytest.raises(ConfigError, match=r"gone\.wav"):
        extract.check_audio(features, tmp_path / "gone.wav")
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 22050)
    with pytest.raises(ConfigError, match="too short"):
        extract.check_audio(features, tmp_path / "short.wav")
    monkeypatch.setattr(extract, "DEMO_SONG", tmp_path / "gone.ogg")
    samples, what = extract.check_audio(features, None)
    assert "no song is at hand" in what
    assert samples.dtype == np.float32 and len(samples) == 30 * 22050 and samples.std() > 0.01


def test_a_killed_export_leaves_nothing_that_is_believed(tmp_path):
    run = make_run(tmp_path / "runs")
    words = [sys.executable, "-m", "beattrack_trainer.cli", "export", RUN_ID, "--runs-dir",
             str(run.path.parent), "--save-dir", str(tmp_path / "out")]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out").glob(".export-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    assert [f.name[:8] for f in (tmp_path / "out").iterdir()] == [".export-"]


def test_a_full_disk_is_named_by_the_folder(tmp_path, monkeypatch):
    run = make_run(tmp_path / "runs")

    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(extract, "write_onnx", write)
    with pytest.raises(OSError, match="No space left") as full:
        extract.export_run(run, tmp_path / "out", extract.ExportSettings(), None, tmp_path)
    assert full.value.filename == str(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_is_made_again_only_when_it_differs(monkeypatch):
    run, files = exported()
    noted = OnnxModel(files[0]).provenance["commit"]
    monkeypatch.setattr(extract, "commit", lambda: noted)
    same = extract.ExportSettings(flux_mix=0.9, licence="<b>CC BY</b>")
    assert extract.is_export_of(files[0], run, same)
    assert not extract.is_export_of(files[0], run, extract.ExportSettings(flux_mix=0.9))
    assert not extract.is_export_of(files[0].with_name("gone.onnx"), run, same)
