"""The audio with clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from beattrack.events import Beat, StateChange, TrackerState
from beattrack_runtime.errors import OutputError
from beattrack_runtime.outputs import click as click_module
from beattrack_runtime.outputs.click import BEAT_HZ, CLICK_S, DOWNBEAT_HZ, ClickOutput

RATE = 44100


def beat(time_s: float, position: int = 2) -> Beat:
    return Beat(time_s, position, 4, 120.0, 0.9, time_s + 0.05)


def render(
    path: Path, audio: np.ndarray, beats: list[Beat], rate: int = RATE, block: int = 4410
) -> tuple[np.ndarray, soundfile.SoundFile]:
    """Run audio [n, channels] through; each beat comes with the block after its own time."""
    output = ClickOutput(path, rate, audio.shape[1], len(audio) / rate)
    waiting = list(beats)
    for start in range(0, len(audio), block):
        output.audio(audio[start : start + block])
        while waiting and waiting[0].emitted_s * rate <= start + block:
            output.event(waiting.pop(0))
    for event in waiting:
        output.event(event)
    output.finish()
    got, _ = soundfile.read(path, always_2d=True)
    return got, soundfile.info(path)


def pitch(sound: np.ndarray, rate: int = RATE) -> float:
    return float(np.abs(np.fft.rfft(sound, 1 << 16)).argmax() * rate / (1 << 16))


def test_clicks_stand_on_the_beats_and_downbeats_are_higher(tmp_path: Path) -> None:
    beats = [beat(0.5, 1), beat(1.0), beat(1.5)]
    got, info = render(tmp_path / "a.wav", np.zeros((3 * RATE, 1), np.float32), beats)
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    assert len(got) == 3 * RATE
    length = round(CLICK_S * RATE)
    for event in beats:
        start = round(event.time_s * RATE)
        expected = DOWNBEAT_HZ if event.is_downbeat else BEAT_HZ
        assert pitch(got[start : start + length, 0]) == pytest.approx(expected, abs=30)
        assert np.abs(got[start - 1000 : start]).max() == 0
        assert np.abs(got[start : start + 100]).max() > 0.2
        got[start : start + length] = 0
    assert np.abs(got).max() == 0


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 96000])
def test_the_song_is_kept_under_the_clicks(channels: int, rate: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    song = rng.uniform(-1, 1, (2 * rate, channels)).astype(np.float32)
    got, info = render(tmp_path / "a.wav", song, [beat(1.0)], rate)
    assert info.samplerate == rate
    assert got.shape == (2 * rate, channels if channels <= 2 else 1)
    if channels <= 2:
        quiet = song[: rate // 2]
        assert np.corrcoef(got[: rate // 2].ravel(), quiet.ravel())[0, 1] > 0.999
    assert np.abs(got).max() <= 1.0


def test_blocks_and_late_beats_change_nothing(tmp_path: Path) -> None:
    song = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * RATE, 2)).astype(np.float32)
    beats = [
        Beat(t, 1, 4, 120.0, 0.9, t + late) for t, late in ((0.0, 0.8), (1.0, -0.1), (2.95, 0))
    ]
    first, _ = render(tmp_path / "a.wav", song, beats)
    for block in (100, 44100, 3 * RATE):
        assert np.array_equal(render(tmp_path / "b.wav", song, beats, block=block)[0], first)


def test_odd_streams_make_a_file(tmp_path: Path) -> None:
    got, _ = render(tmp_path / "a.wav", np.zeros((3, 1), np.float32), [beat(0.0), beat(5.0)])
    assert len(got) == 3
    song = np.full((RATE, 1), np.nan, np.float32)
    song[100] = np.inf
    got, _ = render(tmp_path / "b.wav", song, [])
    assert np.abs(got).max() == 0


def test_other_events_do_not_click(tmp_path: Path) -> None:
    output = ClickOutput(tmp_path / "a.wav", RATE, 1, None)
    output.event(StateChange(TrackerState.LOCKED, 0.1, 0.5))
    output.frame(0.1, 1.0, 1.0)
    output.audio(np.zeros((RATE, 1), np.float32))
    output.finish()
    assert np.abs(soundfile.read(tmp_path / "a.wav")[0]).max() == 0


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("older")
    output = ClickOutput(path, RATE, 1, 10.0)
    output.audio(np.zeros((3 * RATE, 1), np.float32))
    assert path.read_text() == "older"
    output.abandon()
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    assert path.read_text() == "older"


def test_memory_is_bounded(tmp_path: Path) -> None:
    output = ClickOutput(tmp_path / "a.wav", 8000, 1, None)
    for second in range(100):
        output.audio(np.zeros((8000, 1), np.float32))
        output.event(beat(float(second)))
    assert sum(len(block) for block in output._blocks) <= 2 * 8000
    assert len(output._due) <= 3
    output.finish()
    assert soundfile.info(tmp_path / "a.wav").frames == 100 * 8000


def test_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hours = 4 * 3600
    output = ClickOutput(tmp_path / "long.wav", 96000, 2, hours)
    output.audio(np.zeros((96000, 2), np.float32))
    output.finish()
    assert soundfile.info(tmp_path / "long.wav").format == "RF64"
    monkeypatch.setattr(click_module, "_WAV_LIMIT", 100_000)
    output = ClickOutput(tmp_path / "live.wav", RATE, 1, None)
    for _ in range(40):
        output.audio(np.zeros((4410, 1), np.float32))
    output.finish()
    info = soundfile.info(tmp_path / "live.wav")
    assert (info.format, info.frames) == ("WAV", 48510)
    assert caplog.text.count("has reached 4 GB") == 1


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^Cannot write '.*': No such file or directory\.$"):
        ClickOutput(tmp_path / "none" / "a.wav", RATE, 1, None)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = ClickOutput(tmp_path / "a.wav", RATE, 1, None)

    def fails(*_: object) -> None:
        raise soundfile.LibsndfileError(2)

    monkeypatch.setattr(output._file, "write", fails)
    output.audio(np.zeros((RATE, 1), np.float32))
    with pytest.raises(OutputError, match=r"^Cannot write '.*a\.wav': is the disk full\?$"):
        output.audio(np.zeros((RATE, 1), np.float32))
    output.abandon()
    assert list(tmp_path.iterdir()) == []
