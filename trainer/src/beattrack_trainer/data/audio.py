"""Audio files of any format, rate and number of channels, as mono at the features' rate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from beattrack_runtime.sources import FileSource

BLOCK_S = 5.0  # decoded at a time: an hour long file needs no more memory than a short one


def read_blocks(path: Path, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Decode a file and yield it block by block as mono float32 [n] at ``sample_rate``.

    What libsndfile reads (WAV, FLAC, Ogg, MP3, AIFF), else what FFmpeg's libraries read (M4A, AAC
    and the rest). Channels are averaged; soxr's high quality resamples. The blocks together do
    not depend on how the file was cut into them.

    Raises:
        BeattrackError: there is no such file, or none of it can be read.
    """
    source = FileSource(path, BLOCK_S)
    same = source.sample_rate == sample_rate
    resampler = None if same else soxr.ResampleStream(source.sample_rate, sample_rate, 1)
    try:
        for block in source.blocks():
            mono = _mono(block)
            yield mono if resampler is None else _pull(resampler, mono, last=False)
        if resampler is not None:
            yield _pull(resampler, np.empty(0, np.float32), last=True)
    finally:
        source.close()


def read_audio(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """Return a whole file as ``read_blocks`` gives it, float32 [n]."""
    return np.concatenate([np.empty(0, np.float32), *read_blocks(path, sample_rate)])


@contextmanager
def decoder_warnings() -> Iterator[list[str]]:
    """Collect what the decoder warns of, such as a file that is cut off, instead of logging it."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("beattrack")
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield found
    finally:
        log.removeHandler(handler)
        log.propagate = before


def _mono(block: NDArray[np.float32]) -> NDArray[np.float32]:
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    # Channel by channel: np.mean adds along the short axis, which is ten times slower.
    total = block[:, 0] + block[:, 1]
    for channel in range(2, channels):
        total += block[:, channel]
    return np.asarray(total / np.float32(channels), dtype=np.float32)


def _pull(
    resampler: soxr.ResampleStream, mono: NDArray[np.float32], last: bool
) -> NDArray[np.float32]:
    return np.asarray(resampler.resample_chunk(mono, last=last), dtype=np.float32)
