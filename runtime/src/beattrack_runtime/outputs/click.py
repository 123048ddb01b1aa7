"""The audio with a click laid over every beat, a higher one on downbeats."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from beattrack.events import Beat, Event
from beattrack_runtime.errors import OutputError
from beattrack_runtime.outputs.pending import PendingFile

HOLD_S = 1.0  # audio waits this long, since a beat may become known after it sounded
DOWNBEAT_HZ, BEAT_HZ = 1760.0, 1175.0
CLICK_S = 0.06
CLICK_LEVEL = 0.45  # of full scale
AUDIO_GAIN = 0.55  # the audio steps back: with the click it cannot exceed full scale

_WAV_LIMIT = 2**32 - 2**16  # bytes; a WAV header counts in 32 bits
_log = logging.getLogger("beattrack")


class ClickOutput:
    """Writes 16-bit WAV at the source's own rate; more than two channels become one."""

    def __init__(
        self, path: Path, sample_rate: int, channels: int, duration_s: float | None
    ) -> None:
        """Open ``path``.

        Args:
            path: the WAV file.
            sample_rate: of the audio, Hz.
            channels: of the audio; one or two are kept.
            duration_s: expected length; above 4 GB the file is written as RF64. None: not known,
                and a WAV file that reaches 4 GB is ended there with a warning.

        Raises:
            OutputError: the file cannot be made.
        """
        self.path = path
        self._rate = sample_rate
        self._channels = channels if channels <= 2 else 1
        size = (duration_s or 0.0) * sample_rate * self._channels * 2
        kind = "RF64" if size > _WAV_LIMIT else "WAV"
        self._room = _WAV_LIMIT // (2 * self._channels) if kind == "WAV" else None  # samples
        self._clicks = {
            one: make_click(hertz, sample_rate, CLICK_LEVEL)
            for one, hertz in ((True, DOWNBEAT_HZ), (False, BEAT_HZ))
        }
        self._blocks: deque[NDArray[np.float32]] = deque()  # heard, not yet written
        self._held = 0  # samples in _blocks
        self._written = 0  # samples in the file
        self._due: list[tuple[int, NDArray[np.float32]]] = []  # (first sample, click)
        self._pending = PendingFile(path)
        try:
            self._file = soundfile.SoundFile(
                self._pending.temporary, "w", sample_rate, self._channels, "PCM_16", format=kind
            )
        except (OSError, soundfile.SoundFileError) as error:
            self._pending.abandon()
            raise OutputError(f"Cannot write '{path}': {str(error).rstrip('.')}.") from None

    def audio(self, block: NDArray[np.float32]) -> None:
        """Take audio, float32 [n, channels]; what has waited long enough is written."""
        if block.shape[1] != self._channels:
            block = block.mean(axis=1, keepdims=True)
        self._blocks.append(np.nan_to_num(block, posinf=0.0, neginf=0.0) * np.float32(AUDIO_GAIN))
        self._held += len(block)
        while self._blocks and self._held - len(self._blocks[0]) >= HOLD_S * self._rate:
            self._write()

    def frame(self, time_s: float, beat: float, downbeat: float) -> None:
        """Activations are not heard."""

    def event(self, event: Event) -> None:
        """Lay a click over a beat."""
        if isinstance(event, Beat):
            self._due.append((round(event.time_s * self._rate), self._clicks[event.is_downbeat]))

    def finish(self) -> None:
        """Write what has been held back and close the file. Raises OutputError."""
        while self._blocks:
            self._write()
        try:
            self._file.close()
        except soundfile.SoundFileError:
            raise self._failure() from None
        self._pending.commit()

    def abandon(self) -> None:
        """Remove the file."""
        with contextlib.suppress(soundfile.SoundFileError):
            self._file.close()
        self._pending.abandon()

    def _failure(self) -> OutputError:
        # libsndfile says no more than 'System error'.
        return OutputError(f"Cannot write '{self.path}': is the disk full?")

    def _write(self) -> None:
        """Mix the clicks into the oldest block and write it."""
        block = self._blocks.popleft()
        self._held -= len(block)
        begin, end = self._written, self._written + len(block)
        for start, click in self._due:
            first, last = max(begin, start), min(end, start + len(click))
            if first < last:
                block[first - begin : last - begin] += click[first - start : last - start, None]
        self._due = [(start, click) for start, click in self._due if start + len(click) > end]
        self._written = end
        if self._room is not None and end > self._room:
            if begin <= self._room:
                _log.warning("'%s' has reached 4 GB and ends here.", self.path)
            return
        try:
            self._file.write(np.clip(block, -1.0, 1.0))
        except soundfile.SoundFileError:
            raise self._failure() from None


def make_click(frequency: float, sample_rate: int, level: float) -> NDArray[np.float32]:
    """Return a short decaying sine, float32 [n]; lower where the rate could not carry it.

    ``level`` is a share of full scale.
    """
    time = np.arange(max(1, round(CLICK_S * sample_rate))) / sample_rate
    frequency = min(frequency, 0.4 * sample_rate)
    envelope = np.exp(-time / (CLICK_S / 6)) * np.minimum(1.0, time / 0.001)
    tone = level * envelope * np.sin(2 * np.pi * frequency * time)
    return np.asarray(tone, dtype=np.float32)
