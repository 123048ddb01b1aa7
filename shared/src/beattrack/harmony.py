"""How much the sound changes from one beat to the next: bars begin where chords do."""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LAST_PHASE = 0.85  # of a beat: what sounds later is left out, the next beat may already show in it
LEAST = 0.5  # of the frames up to there must have been heard
JUMP = 0.2  # beats: a phase that moves further in a frame is another reading of the music
# A change is judged against those of the last beats, told by a mean and a spread that forget; at
# first by these, which are means over the development music and weigh as much as START beats.
MEAN, SPREAD, START = 0.27, 0.15, 2.0
MEMORY = 0.94  # of the weight of earlier changes, kept from one beat to the next
MOST = 3.0  # spreads: no change is taken to be greater


class HarmonicChange:
    """Compares the spectrum of each beat with that of the beat before.

    Chords and bass notes change at the first beat of a bar more often than elsewhere, in music of
    all kinds (Goto, "An audio-based real-time beat tracking system for music with or without
    drum-sounds", JNMR 30(2), 2001, section 3.3). The network, whose training rewards what is heard
    in a moment, makes little of it; measured in docs/decoder.md.
    """

    def __init__(self, spectrum_bins: int, latency: int) -> None:
        """Follow log spectra of ``spectrum_bins`` bins; 0: there are none.

        ``latency``: frames by which the phase comes late (the model's ``latency_frames``).
        """
        self._bins = spectrum_bins
        self._latency = latency
        self.reset()

    def reset(self) -> None:
        """Forget the music."""
        self._recent: deque[NDArray[np.float32]] = deque()
        self._phase = 0.0
        self._weight, self._sum, self._squares = START, START * MEAN, START * (MEAN**2 + SPREAD**2)
        self._forget_beats()

    def _forget_beats(self) -> None:
        self._heard = np.zeros(self._bins, dtype=np.float32)  # sum over this beat's frames
        self._frames = 0
        self._open = False  # whether this beat was heard from its start
        self._before: NDArray[np.float32] | None = None  # the last beat's sharpened spectrum

    def step(self, spectrum: NDArray[np.float32], phase: float, period: float) -> float | None:
        """Take a frame's spectrum and return how great the change at the last beat was.

        Args:
            spectrum: float32 [bins], the newest frame's log spectrogram, mean of its channels.
            phase: beats since the last beat, 0-1, ``latency`` frames ago.
            period: frames per beat.

        Returns:
            Once a beat, late in it: by how many spreads the change exceeds that of other beats,
            -3 to 3; at all other frames None.
        """
        if not self._bins:
            return None
        self._recent.append(spectrum)
        if len(self._recent) <= self._latency:
            return None
        heard = self._recent.popleft()
        moved = phase - self._phase
        turned, self._phase = moved < -0.5, phase
        moved -= round(moved)
        if abs(moved - 1 / period) > JUMP + 1 / period:
            self._forget_beats()
        elif turned:
            self._begin()
        elif self._open and phase < LAST_PHASE:
            self._heard += heard
            self._frames += 1
        elif self._open and self._frames >= LEAST * LAST_PHASE * period:
            self._open = False
            return self._close()
        return None

    def _begin(self) -> None:
        """Begin a beat. Its first frame is left out: the window still holds the beat before."""
        if self._open:  # a phase that trembles around the turn begins more than once
            self._before = None if self._frames > 2 else self._before
        self._heard[:] = 0
        self._frames = 0
        self._open = True

    def _close(self) -> float | None:
        """Return the change from the last beat to this one; None if there was no sound in one."""
        before, self._before = self._before, None
        if not np.isfinite(self._heard).all():
            return None
        now = self._before = sharpened(self._heard / np.float32(self._frames))
        change = None if before is None else change_between(before, now)
        if change is None:
            return None
        self._weight = self._weight * MEMORY + 1
        self._sum = self._sum * MEMORY + change
        self._squares = self._squares * MEMORY + change**2
        mean = self._sum / self._weight
        spread = math.sqrt(max(self._squares / self._weight - mean**2, 1e-6))
        return min(max((change - mean) / spread, -MOST), MOST)


def change_between(before: NDArray[np.float32], now: NDArray[np.float32]) -> float | None:
    """Return 1 less the cosine of two sharpened spectra, float32 [bins], none of them below 0.

    0-1; None where one is of silence.
    """
    size = math.sqrt(float(now @ now) * float(before @ before))
    return None if size < 1e-6 else 1 - float(now @ before) / size


def sharpened(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what stands out of its neighbours, float32 [bins]: partials, less of noise and drums.

    Its root: so many weak partials count beside a strong one.
    """
    return np.sqrt(above_neighbours(spectrum))


def above_neighbours(spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each bin less the mean of itself and its two neighbours, where that is above 0.

    Takes and returns float32 [bins]; beyond the ends the last bin goes on.
    """
    above: NDArray[np.float32] = _less_neighbours(len(spectrum)) @ spectrum
    return np.maximum(above, np.float32(0), out=above)


@lru_cache(maxsize=4)
def _less_neighbours(bins: int) -> NDArray[np.float32]:
    """The matrix of that difference, float32 [bins, bins]."""
    one = np.pad(np.eye(bins), ((1, 1), (0, 0)), mode="edge")
    matrix = (one[1:-1] - (one[:-2] + one[1:-1] + one[2:]) / 3).astype(np.float32)
    matrix.setflags(write=False)
    return matrix
