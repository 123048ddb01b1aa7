"""Delays of loudspeaker, microphone and lamp, found by listening and by tapping along.

A show hears the music late by the delay of its input, and what it drives acts late by a delay of
its own. ``measure_round_trip`` finds the sum of both for a loudspeaker, from clicks that were
played and recorded; ``measure_taps`` finds when people take a beat to come from a lamp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError

EARLIEST_S = 0.1  # a card that promises more delay than it has sounds before it is asked to
LONGEST_S = 1.0  # round trip that is looked for; Bluetooth takes some 0.3 s
AGREE_S = 0.003  # clicks whose delays differ by no more than this agree
NEAR_S = 0.015  # each click is looked for so far from where most of them are
FIRST_ECHO = 0.6  # of the strongest arrival; an earlier one at least so strong is the direct sound
APART_S = 0.005  # two arrivals nearer than this are one
LOUD = 4.0  # times the middle of its surroundings: then a click was heard
MIN_CLICKS = 4  # that must agree, and half of all
SETTLE_TAPS = 4  # beats at first that are not counted: one has to find the pulse
MIN_TAPS = 8
TRIM = 0.2  # share of the taps left out at each end
MAX_UNEVEN_S = 0.06  # spread of the taps beyond which they tell nothing


@dataclass(frozen=True)
class Delay:
    """A measured delay."""

    delay_s: float
    error_s: float  # standard error
    used: int  # clicks or taps that agree
    of: int  # clicks played, or taps given

    def __str__(self) -> str:
        return f"{self.delay_s * 1e3:.1f} +- {max(0.1, self.error_s * 1e3):.1f} ms"


def measure_round_trip(
    recorded: NDArray[np.float32], rate: int, click: NDArray[np.float32], asked: list[float]
) -> Delay:
    """Return how long after being asked for a click is heard.

    The recording is correlated with the click; the delay is the one at which the middle (median)
    over all clicks is loudest, so that a cough or a click that was not heard does no harm. Then
    each click is looked for near there, and those that disagree are left out.

    Args:
        recorded: float32 [n], mono, full scale 1.
        rate: of the recording and of ``click``, Hz.
        click: float32 [m], the sound itself.
        asked: when each click was asked for, seconds of the recording; at least ``MIN_CLICKS``,
            not evenly spaced.

    Raises:
        ConfigError: too few clicks were heard or agree; the text says what to do.
    """
    earliest, longest = round(EARLIEST_S * rate), round(LONGEST_S * rate)
    found = _arrivals(recorded, click)
    starts = [round(at * rate) - earliest for at in asked]
    whole = [at for at in starts if at >= 0 and at + earliest + longest <= len(found)]
    if len(whole) < MIN_CLICKS:
        raise ConfigError("The recording is too short: let the measurement run to its end.")
    rows = np.stack([found[at : at + earliest + longest] for at in whole])
    background = np.median(rows, axis=1, keepdims=True) + 1e-12
    middle = np.median(rows / background, axis=0)
    apart = round(APART_S * rate)
    where = _first_peak(middle, apart)
    if middle[where] < LOUD:
        raise ConfigError(
            "The clicks were not heard: turn the loudspeaker up, bring the microphone nearer, "
            "or choose another with --device."
        )
    near = round(NEAR_S * rate)
    low = max(0, where - near)
    delays = []
    for row, quiet in zip(rows[:, low : where + near + 1], background[:, 0], strict=True):
        at = _first_peak(row, apart)
        if row[at] >= LOUD * quiet:
            delays.append((low + at - earliest) / rate)
    return _agreeing(np.array(delays), len(asked))


def _arrivals(recorded: NDArray[np.float32], click: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how much of the click begins at each sample, >= 0: a matched filter's envelope."""
    clean = np.nan_to_num(recorded.astype(np.float64), nan=0, posinf=0, neginf=0)
    size = 1 << (len(clean) + len(click) - 1).bit_length()
    spectrum = np.fft.fft(clean, size) * np.conj(np.fft.fft(click.astype(np.float64), size))
    spectrum[size // 2 :] = 0  # only positive frequencies: the modulus is then the envelope
    return np.abs(np.fft.ifft(2 * spectrum))[: len(clean)]


def _first_peak(row: NDArray[np.float64], apart: int) -> int:
    """Return the first place that is nearly as high as the highest, and the highest around."""
    padded = np.pad(row, apart, constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * apart + 1).max(axis=1)
    return int(np.flatnonzero((row >= around) & (row >= FIRST_ECHO * row.max()))[0])


def _agreeing(delays: NDArray[np.float64], played: int) -> Delay:
    """Return the mean of the delays that agree. Raises ConfigError if most do not."""
    centre = float(np.median(delays)) if len(delays) else math.nan
    kept = delays[np.abs(delays - centre) <= AGREE_S]
    if len(kept) < max(MIN_CLICKS, played / 2):
        raise ConfigError(
            f"Only {len(kept)} of {played} clicks agree: make it quieter around, "
            "or turn the loudspeaker up."
        )
    error = float(kept.std(ddof=1)) / math.sqrt(len(kept))
    return Delay(float(kept.mean()), error, len(kept), played)


def measure_taps(taps: list[float], beats: list[float]) -> Delay:
    """Return how long after each beat the taps come: a trimmed mean, negative if before it.

    Args:
        taps: when a key was pressed, seconds of any clock.
        beats: when each beat was asked for, by the same clock, evenly spaced; the first
            ``SETTLE_TAPS`` are not counted.

    Raises:
        ConfigError: too few taps, or too uneven ones.
    """
    period = (beats[-1] - beats[0]) / (len(beats) - 1)
    counted = np.array(beats[SETTLE_TAPS:])
    # One tap of each beat, whole beats apart from it at most by half a beat.
    late = [tap - counted[np.abs(counted - tap).argmin()] for tap in taps]
    offsets = np.array([x for x in late if abs(x) <= period / 2])
    if len(offsets) < MIN_TAPS:
        raise ConfigError(
            f"Only {len(offsets)} taps could be used: tap on every beat, {MIN_TAPS} times at least."
        )
    # Where taps lie about half a beat away they fall on both ends: turn the circle first.
    turn = float(np.angle(np.exp(2j * np.pi * offsets / period).mean()) / (2 * np.pi) * period)
    offsets = np.sort((offsets - turn + period / 2) % period - period / 2) + turn
    cut = int(TRIM * len(offsets))
    kept = offsets[cut : len(offsets) - cut]
    spread = float(np.subtract(*np.percentile(offsets, (75, 25)))) / 1.349
    if spread > MAX_UNEVEN_S:
        raise ConfigError(
            f"The taps are too uneven ({spread * 1e3:.0f} ms): try again, "
            "with the finger on the key before the beat."
        )
    # The error of a trimmed mean, from the spread of all that was not trimmed away.
    return Delay(float(kept.mean()), spread / math.sqrt(len(kept)), len(kept), len(taps))
