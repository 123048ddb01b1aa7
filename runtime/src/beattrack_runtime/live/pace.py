"""Keeps a live stream in step with the clock on the wall when audio goes missing.

Stream time is counted in samples. Where samples are lost, or do not come for a while, whatever
follows would seem to happen too early; so silence of the same length takes their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

WINDOW_S = 10.0  # over which the usual delay of the audio is taken
LOSS_S = 2.0  # audio that came late for so long has lost something before it
LOSS_AT_S = 0.02  # by more than this; less is jitter, and drift between two clocks
FAST_S = 1.0  # a stream that gains so much on the clock in a window is not live
SLACK_S = 0.005  # audio may be so much early after a gap


class Pace:
    """Compares samples with the wall clock and says what silence is wanted.

    The stream's usual place is its earliest one: over the last 10 to 20 s, no audio came sooner
    after the moment that its count of samples stands for. Drift of some hundred ppm between the
    two clocks is followed, since old windows are forgotten. A stream that comes faster than the
    clock runs, as from a file, is left as it is.

    Times are those of ``time.monotonic``; lengths are in samples.
    """

    def __init__(self, sample_rate: int) -> None:
        """Begin with the first audio that is told of."""
        self._rate = sample_rate
        self._samples = 0  # of the stream so far, silence included
        self._window: tuple[float, int] | None = None  # when this window began, at which sample
        self._fast = False  # whether the last window gained on the clock
        self._origins = (math.inf, math.inf)  # earliest start of the stream: last window, this one
        self._recent = (math.inf, 0.0)  # earliest start lately, and since when
        self._last = 0.0  # when audio came last
        self._gap = 0  # silence given since then
        self._debt = 0  # silence given in the last gap: so much late audio is of no use
        self._resumed = 0.0  # when audio came again after it

    @property
    def begun(self) -> bool:
        """Whether any audio has come."""
        return self._window is not None

    def heard(self, samples: int, now: float) -> None:
        """So many samples of audio have just come."""
        self._samples += samples
        if self._window is None:
            self._window = (now, self._samples)
            self._recent = (math.inf, now)
        self._roll(now)
        start = now - self._samples / self._rate
        self._origins = (self._origins[0], min(self._origins[1], start))
        self._recent = (min(self._recent[0], start), self._recent[1])
        self._last, self._gap = now, 0

    def behind(self, now: float) -> int:
        """Return how much silence brings the stream to where it should be by now."""
        if self._window is None:
            return 0
        self._roll(now)
        if self._fast or self._gain(now) > FAST_S:
            return 0
        # Never more than the time without audio: if we ourselves are slow, nothing is missing.
        quiet = round((now - self._last) * self._rate) - self._gap
        return max(0, min(-self._ahead(now), quiet))

    def fill(self, samples: int) -> None:
        """Silence was put in for audio that did not come."""
        self._samples += samples
        self._gap += samples
        self._debt += samples

    def restart(self) -> None:
        """What comes next is new: the audio of the gap was lost for good."""
        self._debt = 0

    def resume(self, samples: int, now: float) -> tuple[int, int]:
        """A block has come: return (silence wanted before it, samples to drop from its front).

        Both are 0 unless a gap has been filled. Then what is still missing is made up; or, where
        the audio of the gap comes after all, what silence has already stood for is dropped.
        """
        missing = drop = 0
        if self._gap:
            missing = max(0, self.behind(now) - samples)
            self._samples += missing
            self._resumed = now
            self._recent = (math.inf, now)
        if self._debt:
            early = self._ahead(now) + samples
            if early > SLACK_S * self._rate:
                drop = min(samples, early, self._debt)
                self._debt -= drop
            elif now - self._resumed > LOSS_S:
                self._debt = 0
        return missing, drop

    def lost(self, now: float) -> int:
        """Return the silence that stands for samples gone missing unnoticed; asked after a block.

        Audio that is lost in a sound card or a driver leaves no mark, but all that follows comes
        later by the clock than its count says.
        """
        earliest, since = self._recent
        if now - since < LOSS_S:
            return 0
        self._recent = (math.inf, now)
        late = earliest - min(self._origins)
        if self._fast or not LOSS_AT_S < late < math.inf:
            return 0
        missing = round(late * self._rate)
        self._samples += missing
        return missing

    def _roll(self, now: float) -> None:
        """Begin a new window when this one is over."""
        assert self._window is not None
        if now - self._window[0] < WINDOW_S:
            return
        self._fast = self._gain(now) > FAST_S
        self._window = (now, self._samples)
        if self._origins[1] < math.inf:  # a window without audio teaches nothing
            self._origins = (self._origins[1], math.inf)

    def _gain(self, now: float) -> float:
        """Seconds that the stream has gained on the clock in this window."""
        assert self._window is not None
        began, at = self._window
        return (self._samples - at) / self._rate - (now - began)

    def _ahead(self, now: float) -> int:
        """Samples by which the stream is before its usual place; negative: behind."""
        return round(self._samples - (now - min(self._origins)) * self._rate)


def in_step(
    pace: Pace, block: NDArray[np.float32], now: float, rate: int
) -> Iterator[NDArray[np.float32]]:
    """Yield a block that has come, after the silence that it wants and less what is too late."""
    fill, drop = pace.resume(len(block), now)
    if fill:
        yield from silence(fill, block.shape[1], rate)
    block = block[drop:]
    pace.heard(len(block), now)
    yield block


def silence(samples: int, channels: int, rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield silence, in slices of a second at most; one of no length if ``samples`` is 0."""
    while True:
        part = min(samples, rate)
        samples -= part
        yield np.zeros((part, channels), np.float32)
        if not samples:
            return
