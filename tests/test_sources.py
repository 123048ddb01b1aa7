"""Audio files of all kinds, whole and damaged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beattrack_runtime.errors import MisuseError, SourceError
from beattrack_runtime.sources import FileSource, paced
from flux_model import drum_loop

RATE = 44100


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


def encode(path: Path, audio: np.ndarray, codec: str = "aac", layout: str = "stereo") -> None:
    """Write float32 [n] through PyAV, the same in each channel."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        channels = len(av.AudioLayout(layout).channels)
        planes = np.repeat(audio[None], channels, axis=0)
        for start in range(0, planes.shape[1], 1024):
            part = np.ascontiguousarray(planes[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read(path: Path) -> tuple[FileSource, np.ndarray]:
    source = FileSource(path)
    blocks = list(source.blocks())
    source.close()
    assert all(block.dtype == np.float32 for block in blocks)
    return source, np.concatenate(blocks)


def lag(audio: np.ndarray, reference: np.ndarray) -> int:
    """Return how many samples later ``audio`` is than ``reference``."""
    size = 2 * len(reference)
    spectrum = np.fft.rfft(audio, size) * np.conj(np.fft.rfft(reference, size))
    peak = int(np.fft.irfft(spectrum).argmax())
    return peak if peak < len(reference) else peak - size


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    audio: np.ndarray = drum_loop(6, 120, RATE, 0.2)[0]
    return audio / 2


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.m4a", "a.mka"])
def test_formats_are_read_in_full_and_in_place(name: str, song: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".m4a":
        encode(path, song)
    elif path.suffix == ".mka":
        encode(path, song, "ac3", "5.1")
    else:
        soundfile.write(path, np.stack([song, song], axis=1), RATE)
    source, audio = read(path)
    assert (source.sample_rate, source.name) == (RATE, name)
    assert source.duration_s == pytest.approx(6.0, abs=0.1)
    assert audio.shape[1] == source.channels == (6 if name == "a.mka" else 2)
    assert len(audio) == pytest.approx(len(song), abs=2000)
    mono = audio.mean(axis=1)[: len(song)]
    assert abs(lag(mono, song)) <= 5  # 0.1 ms: no codec's padding is left in


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rates_and_channels(rate: int, channels: int, tmp_path: Path) -> None:
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 2 + 7, channels))
    soundfile.write(tmp_path / "a.wav", audio, rate, "PCM_24")
    source, got = read(tmp_path / "a.wav")
    assert (source.sample_rate, source.channels) == (rate, channels)
    assert np.allclose(got, audio, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_blocks_are_the_whole_cut_up(name: str, song: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / name, np.stack([song, song], axis=1), RATE)
    whole, _ = soundfile.read(tmp_path / name, dtype="float32")
    assert np.allclose(read(tmp_path / name)[1], whole, atol=1e-6)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_truncated_file_is_read_as_far_as_it_goes(
    name: str, song: np.ndarray, tmp_path: Path,
    log: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / name
    soundfile.write(path, song, RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    _, audio = read(path)
    assert 0.2 * len(song) < len(audio) < 0.8 * len(song)
    assert "is damaged or cut off" in log.text
    assert capfd.readouterr().err == ""  # the libraries keep quiet


def test_damage_inside_is_skipped(
    song: np.ndarray, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.m4a"
    encode(path, song)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = np.random.default_rng(1).bytes(200)
    path.write_bytes(data)
    _, audio = read(path)
    assert len(audio) > 0.9 * len(song)
    assert "is damaged" in log.text


def test_a_header_without_a_length_is_no_damage(
    song: np.ndarray, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, song, RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"  # what ffmpeg writes into a pipe
    path.write_bytes(data)
    assert len(read(path)[1]) == len(song)
    assert log.text == ""


def test_very_short_and_empty_audio(tmp_path: Path) -> None:
    for count in (0, 1, 3):
        soundfile.write(tmp_path / "a.wav", np.zeros(count), RATE)
        source = FileSource(tmp_path / "a.wav")
        assert sum(len(block) for block in source.blocks()) == count
        source.close()


def _text(path: Path) -> None:
    path.write_text("this is no audio\n" * 100)


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n")


def _picture(path: Path) -> None:
    import matplotlib.image

    matplotlib.image.imsave(path, np.zeros((8, 8, 3)), format="png")


@pytest.mark.parametrize("make", [_text, _playlist, _picture, Path.touch])
def test_what_is_no_audio_is_one_sentence(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(SourceError, match=r"^'.*a\.wav' (holds no audio|is empty).*\.$"):
        FileSource(path)


def test_a_head_alone_is_one_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    for name in ("a.flac", "a.ogg", "a.mp3"):
        path = tmp_path / name
        soundfile.write(path, noise, RATE)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(SourceError, match=r"^'.*\.$"):
            read(path)


def test_missing_files_and_folders_are_misuse(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="There is no file"):
        FileSource(tmp_path / "nothing.wav")
    with pytest.raises(MisuseError, match="is a folder"):
        FileSource(tmp_path)


def test_impossible_headers_are_one_sentence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(10), 50)
    with pytest.raises(SourceError, match="sample rate of 50 Hz"):
        FileSource(tmp_path / "slow.wav")
    soundfile.write(tmp_path / "wide.wav", np.zeros((10, 100)), RATE)
    with pytest.raises(SourceError, match="100 channels"):
        FileSource(tmp_path / "wide.wav")


def test_pacing_keeps_to_the_clock() -> None:
    def blocks() -> Iterator[np.ndarray]:
        for _ in range(20):
            yield np.zeros((100, 1), np.float32)

    began = time.monotonic()
    for number, _ in enumerate(paced(blocks(), 10000, lambda: False), 1):
        # A block is handed over when its last sample has been heard, never before.
        assert time.monotonic() - began >= number * 0.01 - 1e-3
    assert time.monotonic() - began < 1.0
    began = time.monotonic()
    assert sum(map(len, paced(blocks(), 100, lambda: True))) == 2000
    assert time.monotonic() - began < 0.5
