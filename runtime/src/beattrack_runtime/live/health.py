"""How a source does: level, clipping, dropouts and the drift of its clock, in one line."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beattrack.gate import SILENCE_DBFS
from beattrack_runtime.live.walltime import StreamTime

if TYPE_CHECKING:
    from beattrack_runtime.sources import Source

LOWEST_DB = -120.0
FULL = 0.999  # of full scale: a sample at least so loud was probably louder
LEVEL_S = 0.3  # over which the level is averaged
CLIP_SHOWN_S = 2.0  # how long the line says that the input clipped
SILENT_S = 5.0  # silence worth a word
CLIP_TOLD = 20  # clipped stretches after which the log tells what to do

_log = logging.getLogger("beattrack")


class Health:
    """Follows one source, block by block, in constant memory.

    Attributes:
        level_db: RMS of the last 0.3 s, dB of full scale, at least -120.
        peak: loudest sample of the last block, full scale 1.
        clipping: whether the input reached full scale in the last 2 s.
        clipped: how many times it began to.
        silent_s: how long nothing has sounded, seconds.
    """

    def __init__(self, source: Source) -> None:
        """Nothing was heard yet."""
        self._source = source
        self._time = StreamTime()
        self._rate = source.sample_rate
        self._power = 0.0
        self._heard = 0  # samples
        self._clip_left = 0  # samples for which clipping is still shown
        self._zeros = True  # whether nothing but zeros came in this silence
        self._told_clipping = self._told_zeros = False
        self.peak = 0.0
        self.clipped = 0
        self.silent_s = 0.0

    def heard(self, block: NDArray[np.float32], at_s: float) -> None:
        """Take a block, float32 [n, channels], that came at ``at_s``, monotonic seconds."""
        n = len(block)
        if not n:
            return
        self._heard += n
        self._time.heard(self._heard / self._rate, at_s)
        flat: NDArray[np.float32] = block.reshape(-1)
        peak = float(np.abs(flat).max())
        power = float(np.dot(flat, flat)) / len(flat)
        if not math.isfinite(power):  # counted by the tracker; here it must not stay for ever
            flat = np.nan_to_num(flat, nan=0, posinf=1, neginf=-1).clip(-1, 1)
            peak, power = float(np.abs(flat).max()), float(np.dot(flat, flat)) / len(flat)
        self.peak = peak
        weight = 1 - math.exp(-n / self._rate / LEVEL_S)
        self._power += weight * (power - self._power)
        self._follow_clipping(n, peak)
        self._follow_silence(n, peak, power)

    def _follow_clipping(self, n: int, peak: float) -> None:
        if peak < FULL:
            self._clip_left = max(0, self._clip_left - n)
            return
        self.clipped += not self._clip_left
        self._clip_left = round(CLIP_SHOWN_S * self._rate)
        if self.clipped >= CLIP_TOLD and not self._told_clipping and self._live:
            self._told_clipping = True
            _log.warning("The input clips again and again: turn it down.")

    def _follow_silence(self, n: int, peak: float, power: float) -> None:
        if power >= 10 ** (SILENCE_DBFS / 10):
            self.silent_s, self._zeros = 0.0, True
            return
        self._zeros = self._zeros and peak == 0.0
        self.silent_s += n / self._rate
        muted = self._zeros and self.silent_s > SILENT_S and not self._source.note
        if muted and not self._told_zeros and self._live:
            self._told_zeros = True
            _log.warning("'%s' gives nothing but zeros: is it muted?", self._source.name)

    @property
    def _live(self) -> bool:
        return self._source.duration_s is None

    @property
    def level_db(self) -> float:
        """RMS of the last 0.3 s in dB of full scale, at least -120."""
        return max(LOWEST_DB, 10 * math.log10(max(self._power, 1e-12)))

    @property
    def clipping(self) -> bool:
        """Whether the input reached full scale in the last 2 s."""
        return self._clip_left > 0

    @property
    def drift_ppm(self) -> float | None:
        """How slow the source's clock is against the wall's, in millionths; None at first."""
        return self._time.drift_ppm

    def line(self) -> str:
        """Return one line for people; what is wrong comes first."""
        words = [self._source.note] if self._source.note else []
        if self.silent_s > SILENT_S:
            words.append("nothing but zeros" if self._zeros else f"silent {self.silent_s:.0f} s")
        else:
            words.append(f"{self.level_db:.0f} dB")
        if self.clipping:
            words.append("clipping")
        if self._source.overruns:
            plural = "s" * (self._source.overruns != 1)
            words.append(f"{self._source.overruns} dropout{plural}")
        drift = self.drift_ppm
        if drift is not None and self._live:
            words.append(f"drift {drift:+.0f} ppm")
        return ", ".join(words)
