"""Where audio comes from: the interface, and audio files."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from beattrack_runtime.errors import MisuseError, SourceError, reason
from beattrack_runtime.quiet import quiet_libraries
from beattrack_runtime.resample import MAX_RATE, MIN_RATE
from beattrack_runtime.session import MAX_CHANNELS

# PyAV raises its own errors, each of which is one of these as well.
_DECODER_ERRORS = (
    soundfile.SoundFileError, OSError, ValueError, EOFError, LookupError, RuntimeError,
    AttributeError,  # of a stream for which it has no decoder
)  # fmt: skip

# How libsndfile reports a WAV file that is shorter, or an Ogg file that ends earlier, than it says.
_CUT_OFF = re.compile(r"data : (?P<bytes>\d+) \(should be|lacks an end-of-stream bit")
_UNKNOWN_BYTES = 0x7FFF0000  # and more: the header was written before the length was known

GAP_STEP_S = 0.05  # a gap in a stream is filled in steps of this; a shorter one is none
MAX_GAP_S = 3600.0  # a longer one is a damaged time stamp
PACED_S = 0.02  # of a block that is played in real time: as long as the tracker's frames

_log = logging.getLogger("beattrack")


class Source(Protocol):
    """A stream of audio."""

    name: str
    sample_rate: int  # Hz
    channels: int
    duration_s: float | None  # None when it is not known
    overruns: int  # times that audio was lost on the way
    note: str  # what is wrong with it now, in a few words; empty while all is well

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels], full scale at 1; n may be 0 while nothing has come."""

    def close(self) -> None:
        """Let go of the file or device."""


class _ForwardFile(soundfile.SoundFile):
    """A file that is only read onwards.

    `soundfile` seeks to where it is after every read, if it can. In MP3 that restarts the decoder,
    which then lacks the bits that the format keeps in earlier frames, and the audio is damaged.
    """

    def seekable(self) -> bool:
        """Say no, so that nobody seeks."""
        return False


class _SoundFileDecoder:
    """Reads what libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF and more."""

    def __init__(self, path: Path, block_s: float) -> None:
        with quiet_libraries():
            self._file = _ForwardFile(os.fsencode(path))  # a name may be no text
        self.damaged = _cut_off(self._file.extra_info)
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        frames = self._file.frames
        # A header that was never completed announces the largest number.
        known = 0 <= frames < 2**62
        self.duration_s = frames / self.sample_rate if known else None
        self._size = max(1, round(block_s * self.sample_rate))

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels]; raises SoundFileError where damage ends the stream."""
        buffer = np.empty((self._size, self.channels), np.float32)
        while True:
            with quiet_libraries():
                block = self._file.read(out=buffer)
            if not len(block):
                return
            yield block.copy()

    def close(self) -> None:
        self._file.close()


class _AvDecoder:
    """Reads what the ffmpeg libraries inside PyAV read: M4A, video files and the rest."""

    def __init__(self, path: Path) -> None:
        import av  # here, since only some formats need it and it takes 0.1 s

        av.logging.set_level(av.logging.PANIC)
        self._invalid = av.error.InvalidDataError
        self.damaged = False  # whether anything had to be left out so far
        # Play lists are formats too: a file must not be able to name other files or addresses.
        self._container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"})
        if not self._container.streams.audio:
            self._container.close()
            raise ValueError("no audio")
        self._stream = self._container.streams.audio[0]
        self.sample_rate: int = self._stream.rate
        self.channels: int = self._stream.channels
        length = self._container.duration  # microseconds
        self.duration_s = length / 1e6 if length and length > 0 else None
        self._resampler = av.AudioResampler("fltp", self._stream.layout, self.sample_rate)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels], n as the codec likes; silence where packets are missing."""
        start_s = (self._container.start_time or 0) / 1e6
        made = 0
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except self._invalid:
                self.damaged = True
                continue
            for frame in frames:
                # Damaged packets leave a gap, and a film's sound may begin after its picture.
                gap_s = (frame.time or 0.0) - start_s - made / self.sample_rate
                for _ in range(int(min(gap_s, MAX_GAP_S) / GAP_STEP_S)):
                    silence = np.zeros((round(GAP_STEP_S * self.sample_rate), self.channels))
                    made += len(silence)
                    yield silence.astype(np.float32)
                for part in self._convert(frame):
                    made += len(part)
                    yield part
        yield from self._convert(None)

    def _convert(self, frame: Any) -> Iterator[NDArray[np.float32]]:
        for part in self._resampler.resample(frame):
            yield np.ascontiguousarray(part.to_ndarray().T, dtype=np.float32)

    def close(self) -> None:
        self._container.close()


class FileSource:
    """An audio file, decoded block by block: by libsndfile or, where that cannot, by PyAV."""

    overruns = 0
    note = ""

    def __init__(self, path: Path, block_s: float = 0.1) -> None:
        """Open ``path``; blocks are about ``block_s`` seconds long, or as
        the codec likes.

        Raises:
            MisuseError: there is no such file, or it is a folder.
            SourceError: it is empty, holds no audio or cannot be read.
        """
        self.path = path
        self.name = path.name
        self._decoder = _open(path, block_s)
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.duration_s = self._decoder.duration_s
        problem = None
        if not 1 <= self.channels <= MAX_CHANNELS:
            problem = f"{self.channels} channels: 1-{MAX_CHANNELS} can be read."
        elif not MIN_RATE <= self.sample_rate <= MAX_RATE:
            problem = f"a sample rate of {self.sample_rate} Hz: {MIN_RATE}-{MAX_RATE} can be read."
        if problem:
            self.close()
            raise SourceError(f"'{path}' has {problem}")

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels]; a warning follows if some of it is damaged or missing.

        Raises:
            SourceError: none of it can be read.
        """
        frames = 0
        try:
            for block in self._decoder.blocks():
                frames += len(block)
                yield block
        except _DECODER_ERRORS as error:
            _log.debug("'%s': %s", self.path, error)
            damaged = True
        else:
            # Lossy formats may announce some padding more than they hold.
            short = frames / self.sample_rate < (self.duration_s or 0.0) * 0.99 - 0.2
            damaged = short or self._decoder.damaged
        if damaged and not frames:
            raise SourceError(f"'{self.path}' is damaged: none of it can be read.")
        if damaged:
            end = frames / self.sample_rate
            _log.warning("'%s' is damaged or cut off: %.1f s of it can be read.", self.path, end)

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()


def _open(path: Path, block_s: float) -> _SoundFileDecoder | _AvDecoder:
    """Return the first decoder that can read ``path``; raises as FileSource does."""
    try:
        if path.is_dir():
            raise MisuseError(f"'{path}' is a folder: give an audio file.")
        if path.exists() and not path.is_file():
            # It is opened more than once, and what a pipe has given it does not give again.
            raise SourceError(f"'{path}' is a pipe or a device: save it to a file first.")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise MisuseError(f"There is no file '{path}'.") from None
    except OSError as error:
        raise SourceError(f"Cannot read '{path}': {reason(error)}.") from None
    if empty:
        raise SourceError(f"'{path}' is empty.")
    try:
        return _SoundFileDecoder(path, block_s)
    except soundfile.SoundFileError as error:
        _log.debug("'%s': %s", path, error)
    try:
        return _AvDecoder(path)
    except _DECODER_ERRORS as error:
        _log.debug("'%s': %s", path, error)
    raise SourceError(f"'{path}' holds no audio that can be read.")


def _cut_off(report: str) -> bool:
    """Whether libsndfile's report about a file says that a part of it is missing."""
    found = _CUT_OFF.search(report)
    return found is not None and int(found["bytes"] or 0) < _UNKNOWN_BYTES


def paced(
    blocks: Iterator[NDArray[np.float32]], sample_rate: int, stopped: Callable[[], bool]
) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of at most ``PACED_S`` when their last sample would have been heard.

    Args:
        blocks: float32 [n, channels], of any length.
        sample_rate: of the blocks, Hz.
        stopped: asked while waiting; when it says True, the wait ends at once.
    """
    began = time.monotonic()
    heard, step = 0, max(1, round(PACED_S * sample_rate))
    for whole in blocks:
        for start in range(0, max(1, len(whole)), step):  # one without samples passes as it is
            block = whole[start : start + step]
            heard += len(block)
            due = began + heard / sample_rate
            while not stopped() and (wait := due - time.monotonic()) > 0:
                time.sleep(min(wait, 0.05))
            yield block
