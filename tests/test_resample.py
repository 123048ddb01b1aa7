"""The streaming sample-rate converter against theory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beattrack_runtime.resample import StreamResampler

OUT = 22050  # Hz
RATES = [4000, 8000, 11025, 16000, 22051, 32000, 44100, 44101, 48000, 96000, 192000]


def _convert(resampler: StreamResampler, audio: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Push ``audio`` in blocks of ``sizes``, over and over, and flush."""
    parts, at, turn = [], 0, 0
    while at < len(audio):
        size = sizes[turn % len(sizes)]
        parts.append(resampler.push(audio[at : at + size]))
        at, turn = at + size, turn + 1
    return np.concatenate([*parts, resampler.flush()])


def _tone(frequency: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("share", [0.01, 0.2, 0.44])
def test_tones_keep_their_shape_and_place(rate: int, share: float) -> None:
    frequency = share * min(rate, OUT)
    out = _convert(StreamResampler(rate, OUT), _tone(frequency, rate), [rate])
    error = (out - _tone(frequency, OUT, 2.0)[: len(out)])[1000:-1000]
    assert len(out) == OUT
    assert 10 * np.log10(2 * np.mean(error**2)) < -60


@pytest.mark.parametrize("rate", [32000, 44100, 48000, 96000])
@pytest.mark.parametrize("frequency", [12100.0, 14000.0])
def test_what_would_fold_into_the_features_is_gone(rate: int, frequency: float) -> None:
    out = _convert(StreamResampler(rate, OUT), _tone(frequency, rate), [rate])
    assert 10 * np.log10(2 * np.mean(out[1000:-1000] ** 2)) < -65


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from(RATES),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=6).filter(any),
    length=st.integers(0, 3000),
)
def test_block_sizes_change_nothing(rate: int, sizes: list[int], length: int) -> None:
    audio = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    resampler = StreamResampler(rate, OUT)
    whole = _convert(resampler, audio, [max(1, length)])
    resampler.reset()
    assert np.array_equal(_convert(resampler, audio, sizes), whole)
    assert len(whole) == -(-length * OUT // rate)


@pytest.mark.parametrize("rate", RATES)
def test_the_delay_is_as_declared(rate: int) -> None:
    resampler = StreamResampler(rate, OUT)
    assert resampler.delay_s <= 0.0065
    heard = made = 0
    for _ in range(200):
        heard += 50
        made += len(resampler.push(np.zeros(50, np.float32)))
        assert heard / rate - made / OUT <= resampler.delay_s + 1 / rate
