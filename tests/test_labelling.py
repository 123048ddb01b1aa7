"""Offline decoding, agreement of trackers, and the data set made of what they agree on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

pytest.importorskip("beattrack_trainer", reason="the trainer is not installed")

from typer.testing import CliRunner

from beattrack.config import DecoderConfig
from beattrack_runtime.session import STARTER_MODEL
from beattrack_trainer.cli import app
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.labelling.agreement import agreed_parts, agreement
from beattrack_trainer.labelling.viterbi import best_beats

FPS = 50.0


def curves(times, meter, frames, seed=0):
    """Activations with a bump at each beat, some noise, and a smaller bump between beats."""
    rng = np.random.default_rng(seed)
    beat = rng.uniform(0, 0.015, frames).astype(np.float32)
    down = beat * 0.2
    at = np.arange(frames) + 0.5
    for i, time in enumerate(times):
        bump = np.exp(-0.5 * ((at - time * FPS) / 0.8) ** 2)
        beat = np.maximum(beat, 0.9 * bump).astype(np.float32)
        if i % meter == 0:
            down = np.maximum(down, 0.8 * bump).astype(np.float32)
    for time in (times[1:] + times[:-1]) / 2:
        beat = np.maximum(beat, 0.02 * np.exp(-0.5 * ((at - time * FPS) / 0.8) ** 2))
    return beat.astype(np.float32), down.astype(np.float32)


def decoded(beat, down, meters=(3, 4)):
    config = DecoderConfig(beats_per_bar=meters)
    found = best_beats(beat, down, np.empty((len(beat), 0), np.float32), config, FPS)
    return (found[:, 0] + 0.5) / FPS, found[:, 1]


@pytest.mark.parametrize("meter", [3, 4])
@pytest.mark.parametrize("bpm", [64, 97.3, 128, 187])
def test_the_best_path_finds_beats_and_bars(meter, bpm):
    times = 0.31 + np.arange(int(40 * bpm / 60)) * 60 / bpm
    found, bars = decoded(*curves(times, meter, 2100))
    inner = found[(found > times[0] - 0.2) & (found < times[-1] + 0.2)]
    assert len(inner) == len(times)
    assert np.abs(inner - times).max() < 0.012
    first = bars[np.abs(found - times[0]).argmin() :][: len(times)]
    assert (first == np.arange(len(times)) % meter + 1).all()


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_bars_begin_where_the_harmony_changes(first):
    times = 0.31 + np.arange(64) * 0.5
    beat, _ = curves(times, 4, 1700)
    frames = np.floor(times * FPS).astype(int)
    spectrum = np.full((1700, 60), 0.2, np.float32)
    rng = np.random.default_rng(first)
    for i in range(first - 4, 64, 4):
        bar = slice(frames[max(i, 0)], frames[i + 4] if i + 4 < 64 else 1700)
        spectrum[bar, rng.choice(60, 5, replace=False)] = 1
    config = DecoderConfig(beats_per_bar=(4,))
    none = np.empty((1700, 0), np.float32)
    found = best_beats(beat, 0.4 * beat, none, config, FPS, spectrum)
    at = [np.abs((found[:, 0] + 0.5) / FPS - t).argmin() for t in times]
    assert (found[at, 1] == (np.arange(64) - first) % 4 + 1).all()


def test_it_follows_a_tempo_that_drifts():
    gaps = 60 / np.linspace(90, 126, 80)
    times = 0.5 + np.cumsum(gaps)
    found, _ = decoded(*curves(times, 4, int(times[-1] * FPS) + 60))
    assert agreement(times, found) > 0.97


def test_nothing_and_next_to_nothing():
    for frames in (0, 1, 3, 40):
        beat = np.zeros(frames, np.float32)
        found = best_beats(beat, beat, np.empty((frames, 0), np.float32), DecoderConfig(), FPS)
        assert found.shape[1] == 2 and (found[:, 0] <= max(frames, 1)).all()


def test_agreement():
    a = np.arange(20) * 0.5
    assert agreement(a, a + 0.04) == 1.0
    assert agreement(a, a + 0.06) == 0.0
    assert agreement(a, a[::2]) == pytest.approx(2 / 3)
    assert agreement(a, np.empty(0)) == agreement(np.empty(0), a) == 0.0
    assert agreement(a[:1], a[:1]) == 1.0


def with_bars(times):
    return np.column_stack([times, np.arange(len(times)) % 4 + 1])


def test_parts_are_where_enough_members_agree():
    steady = np.arange(0.2, 100, 0.5)
    shifted = np.where(steady < 50, steady, steady + 0.25)  # off-beat from 50 s on
    double = np.arange(0.2, 100, 0.25)
    members = {"a": with_bars(steady), "b": with_bars(shifted), "c": with_bars(double)}
    (part,) = agreed_parts(members, 100.0, 1, ("a", "b"))
    assert part.start == 0 and 48 <= part.end <= 54
    assert (part.beats[:, 0] < part.end).all() and part.agreement > 0.85
    assert agreed_parts(members, 100.0, 2, ("a", "b")) == []
    assert agreed_parts({"a": np.empty((0, 2)), "b": with_bars(steady)}, 100.0, 1, ("a",)) == []


def clicks(path, bpm, seconds, rate=22050):
    audio = np.zeros(seconds * rate, np.float32)
    rng = np.random.default_rng(0)
    for i, at in enumerate(np.arange(0.3, seconds - 0.2, 60 / bpm)):
        hit = rng.normal(0, 1, 2000) * np.exp(-np.arange(2000) / 300)
        audio[int(at * rate) :][:2000] += (0.5 if i % 4 else 0.9) * 0.3 * hit
    soundfile.write(path, audio, rate)


def test_the_command_makes_a_data_set_and_goes_on(tmp_path):
    music, out = tmp_path / "music", tmp_path / "set"
    music.mkdir()
    clicks(music / "steady.wav", 120, 30)
    (music / "broken.wav").write_bytes(b"RIFF")
    words = ["label", str(music), str(out), "--model", str(STARTER_MODEL), "--needed", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    beats = read_beats(out / "beats" / "steady_0.beats")
    gaps = np.diff(beats[:, 0])
    assert np.abs(gaps[2:-2] - 0.5).max() < 0.02
    away = (beats[:, 0] - 0.3 + 0.25) % 0.5 - 0.25
    assert np.abs(np.median(away)) < 0.02
    audio, rate = soundfile.read(out / "tracks" / "steady_0.ogg")
    assert rate == 22050 and len(audio) / rate <= 30.01
    notes = json.loads((out / "labels.json").read_text())
    assert notes["broken.wav"]["why"] and notes["steady.wav"]["rows"]
    stamp = (out / "tracks" / "steady_0.ogg").stat().st_mtime_ns
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (out / "tracks" / "steady_0.ogg").stat().st_mtime_ns == stamp


def test_misuse_is_one_sentence(tmp_path):
    from beattrack.config import ConfigError

    (tmp_path / "none").mkdir()
    words = ["label", str(tmp_path / "none"), str(tmp_path / "out"), "--model", str(STARTER_MODEL)]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ConfigError) and "holds no audio" in str(result.exception)
    clicks(tmp_path / "none" / "a.wav", 120, 3)
    result = CliRunner().invoke(app, [*words, "--needed", "5"])
    assert "cannot agree" in str(result.exception)
