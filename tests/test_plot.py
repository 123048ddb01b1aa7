"""The picture, and the bounded memory that it is drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beattrack.events import Beat, StateChange, TrackerState
from beattrack_runtime.outputs.plot import DETAIL_S, Envelope, PlotOutput, Thinned

RATE = 8000


def feed(output: PlotOutput, seconds: float, silent: bool = False, bpm: float = 120.0) -> None:
    """Push a stream of noise with its beats and activations, in blocks of 0.1 s."""
    rng = np.random.default_rng(0)
    size, number = RATE // 10, 0
    output.event(StateChange(TrackerState.LOCKED, 0.0, 0.5))
    for block in range(int(seconds * 10)):
        noise = np.zeros((size, 2)) if silent else rng.uniform(-0.5, 0.5, (size, 2))
        output.audio(noise.astype(np.float32))
        for frame in range(5):
            output.frame(block / 10 + frame / 50, 0.5, 0.1)
        while not silent and number * 60 / bpm < (block + 1) / 10:
            at = number * 60 / bpm
            output.event(Beat(at, number % 4 + 1, 4, bpm, 0.9, at))
            number += 1


def pixels(path: Path) -> np.ndarray:
    import matplotlib.image

    return matplotlib.image.imread(path)


def test_the_envelope_keeps_every_peak() -> None:
    envelope = Envelope(RATE)
    audio = np.zeros(RATE * 300, np.float32)
    peaks = np.arange(5, 300, 10) * RATE
    audio[peaks] = 0.7
    audio[peaks + 10] = -0.3
    for start in range(0, len(audio), 777):
        envelope.add(audio[start : start + 777], start > len(audio) / 2)
    time, low, high, locked = envelope.columns()
    assert len(time) <= 4096
    assert np.all(np.diff(time) > 0)
    found = time[high == np.float32(0.7)]
    assert np.abs(found - peaks / RATE).max() < 0.2
    assert np.sum(low == np.float32(-0.3)) == len(peaks)
    assert locked[0] == 0
    assert locked[-1] == 1
    assert time[-1] == pytest.approx(300, abs=0.2)


def test_the_curve_is_thinned_evenly() -> None:
    curve = Thinned()
    for x in range(100_000):
        curve.add(x, 2 * x)
    assert 4000 < len(curve.points) <= 8193
    steps = np.diff([x for x, _ in curve.points])
    assert len(set(steps)) == 1


def test_the_detail_is_the_middle_of_a_file(tmp_path: Path) -> None:
    output = PlotOutput(tmp_path / "a.png", "song", RATE, 60.0)
    feed(output, 60)
    detail = output.detail
    assert (detail.begin_s, detail.end_s) == (25.0, 35.0)
    start, samples = detail.samples()
    assert start <= 25.0
    assert len(samples) <= (DETAIL_S + 0.2) * RATE
    assert all(25 <= beat.time_s < 35 for beat in detail.beats)
    assert len(detail.beats) == 20
    assert len(detail.frames) == 500
    output.abandon()


@pytest.mark.parametrize("expected_s", [None, 500.0])
def test_the_detail_is_the_end_where_the_length_is_not_known(
    expected_s: float | None, tmp_path: Path
) -> None:
    output = PlotOutput(tmp_path / "a.png", "song", RATE, expected_s)
    feed(output, 30)
    assert output.detail.end_s == pytest.approx(30.0)
    assert output.detail.begin_s == pytest.approx(20.0)
    output.abandon()


@pytest.mark.parametrize("seconds", [0.0, 0.1, 8.0, 130.0])
@pytest.mark.parametrize("silent", [False, True])
def test_streams_of_any_length_can_be_drawn(seconds: float, silent: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    output = PlotOutput(path, "price $5_{of}$ a song\n<b>", RATE, seconds)
    feed(output, seconds, silent)
    assert not path.exists()
    output.finish()
    image = pixels(path)
    assert image.shape[1] > 1500
    assert image.std() > 0.03
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_the_three_samples_of_a_short_file(tmp_path: Path) -> None:
    output = PlotOutput(tmp_path / "a.png", "short", 44100, 3 / 44100)
    output.audio(np.array([[np.nan], [np.inf], [0.5]], np.float32))
    output.finish()
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "magic"), [("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.JPG", b"\xff\xd8")]
)
def test_other_formats(name: str, magic: bytes, tmp_path: Path) -> None:
    output = PlotOutput(tmp_path / name, "song", RATE, 12.0)
    feed(output, 12)
    output.finish()
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_beats_are_drawn(tmp_path: Path) -> None:
    for name, bpm in (("a.png", 60.0), ("b.png", 180.0)):
        output = PlotOutput(tmp_path / name, "song", RATE, 10.0)
        feed(output, 10, bpm=bpm)
        output.finish()
    green = [
        np.sum(np.all(np.abs(pixels(tmp_path / n)[..., :3] - (0.12, 0.62, 0.54)) < 0.1, axis=-1))
        for n in ("a.png", "b.png")
    ]
    assert green[1] > 1.5 * green[0]
