"""Whether the grid of a MIDI file is the one that a listener would tap.

The three checks look at notes counted in the beats that the file claims: they must lie on its
subdivisions, the first beats of its bars must stand out, and drums and tempo must not speak for
another level. A file that fails is left out, since a wrong label teaches worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from beattrack_trainer.synth.drums import CLAP, CRASH, KICK, RIM, SNARE
from beattrack_trainer.synth.midi import DRUM_CHANNEL, Floats, Note, SynthError

GRID_TOLERANCE = 0.04  # beats; the places below then cover 0.48 of the time
GRID_SHARE = 0.7  # of the notes must lie there
GRID_OFFSET = 0.03  # beats; the median distance of notes near a beat from it
CLEAR = 0.75  # no other place of the bar may have more than this of the downbeat's accent
SLOWEST, FASTEST = 60.0, 215.0  # bpm; the range of the generated patterns
POLKA = 95.0  # bpm; from here a backbeat between the beats is that of a polka or of punk,
POLKA_KICK = 1.5  # if this many times as many strokes of the bass drum are on the beats as between

KICKS, CRASHES = (35, KICK), (CRASH, 52, 55, 57)
SNARES = (RIM, SNARE, CLAP, 40)
HIGHEST_BASS = 55  # MIDI pitch
LONGEST_ACCENT = 4.0  # beats; a longer note is no stronger


class Untrusted(SynthError):
    """A piece whose grid is not to be trusted; ``reason`` says so in a word or three."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def check_alignment(notes: Sequence[Note], compound: bool, name: str) -> None:
    """Raise ``Untrusted`` unless the notes lie on sixteenths and triplets of the beats.

    ``compound`` beats divide by three: their places are the sixths.
    """
    beats = np.array([n.beat for n in notes])
    divisors = (6,) if compound else (4, 3)
    gaps = np.array([np.abs(beats * d - np.round(beats * d)) / d for d in divisors])
    share = float(np.mean(gaps.min(axis=0) < GRID_TOLERANCE))
    distance = beats - np.round(beats)
    near = distance[np.abs(distance) < 0.2]
    offset = abs(float(np.median(near))) if len(near) else 1.0
    if share < GRID_SHARE or offset > GRID_OFFSET:
        raise Untrusted(
            f"{name} is off its beats (share {share:.2f}, offset {offset:.2f}).", "off its beats"
        )


def check_level(
    notes: Sequence[Note], periods: Floats, meter: int, compound: bool, name: str
) -> None:
    """Raise ``Untrusted`` if one would tap another level than beats of ``periods`` (s).

    The tempo must be one that is tapped throughout. Where most of the backbeat lies between the
    beats, it tells twice the tempo in a slow piece, another meter in bars of three and in compound
    ones, and shifted beats unless the bass drum is on them.
    """
    slowest, fastest = 60 / float(periods.max()), 60 / max(1e-6, float(periods.min()))
    if slowest < SLOWEST or fastest > FASTEST:
        raise Untrusted(f"The tempo of {name} is {slowest:.0f} to {fastest:.0f} bpm.", "tempo")
    on, between = _strokes(notes, SNARES, compound)
    bpm = 60 / float(np.median(periods))
    kick_on, kick_between = _strokes(notes, KICKS, compound)
    polka = bpm >= POLKA and kick_on > POLKA_KICK * kick_between
    if between > on and (compound or meter % 3 == 0 or not polka):
        raise Untrusted(
            f"The backbeat of {name} lies between its beats ({bpm:.0f} bpm).",
            "backbeat between the beats",
        )


def _strokes(notes: Sequence[Note], pitches: Sequence[int], compound: bool) -> tuple[int, int]:
    """Strokes of some drums on the beats, and on their halves (or thirds)."""
    beats = np.array([n.beat for n in notes if _is_drum(n, pitches)])
    inside = (1 / 3, 2 / 3) if compound else (0.5,)
    counts = [int(np.sum(np.abs((beats - f + 0.5) % 1 - 0.5) < 0.08)) for f in (0.0, *inside)]
    return counts[0], sum(counts[1:])


def _is_drum(note: Note, pitches: Sequence[int]) -> bool:
    return note.channel == DRUM_CHANNEL and note.pitch in pitches


def accents(notes: Sequence[Note], beats: int, steps: int) -> Floats:
    """What speaks for each step of each beat, float64 [4, beats, steps].

    The rows are strokes of the bass drum, crashes, notes by their length, and changes of the bass.
    A row that says too little or too much to tell bars is zero.
    """
    rows = np.zeros((4, beats * steps))
    lowest: dict[int, int] = {}
    for note in notes:
        step = round(note.beat * steps)
        if not 0 <= step < beats * steps or abs(note.beat * steps - step) > 0.17:
            continue
        if note.channel != DRUM_CHANNEL:
            rows[2, step] += min(max(note.length, 0.1), LONGEST_ACCENT)
            lowest[step] = min(note.pitch, lowest.get(step, HIGHEST_BASS + 1))
        elif note.pitch in KICKS:
            rows[0, step] += 1
        elif note.pitch in CRASHES:
            rows[1, step] += 1
    bass = [(s, p % 12) for s, p in sorted(lowest.items()) if p <= HIGHEST_BASS]
    for (_, before), (step, tone) in pairwise(bass):
        rows[3, step] = tone != before
    least = np.array([30, 8, 0, 20])
    # a cymbal on every other beat keeps time and marks no bars
    most = np.array([np.inf, beats / 6, np.inf, np.inf])
    total = rows.sum(axis=1)
    rows[(total <= least) | (total >= most)] = 0.0
    return rows.reshape(4, beats, steps)


def bar_profile(rows: Floats, positions: Sequence[int]) -> Floats:
    """The mean accent of each place of the bar over the downbeat's, float64 [positions, steps].

    ``rows`` are those of ``accents``; each that says anything counts alike. Positions that are
    rare say nothing. Infinite throughout where nothing marks the downbeat.
    """
    place: NDArray[np.int64] = np.asarray(positions, dtype=np.int64) - 1
    count = np.bincount(place)
    profile = np.zeros((len(count), rows.shape[2]))
    for row in rows:
        mean = np.zeros_like(profile)
        np.add.at(mean, place, row)
        mean[count > 0] /= count[count > 0, None]
        mean[count < 0.1 * count[0]] = 0.0
        if mean.any():
            profile += mean / mean.sum()
    if profile[0, 0] <= 0:
        return np.full_like(profile, np.inf)
    profile /= profile[0, 0]
    return profile


def rival(rows: Floats, positions: Sequence[int]) -> float:
    """The largest accent of the bar beside the downbeat, in downbeats."""
    profile = bar_profile(rows, positions)
    profile[0, 0] = 0.0
    return float(profile.max())


def check_bars(rows: Floats, positions: Sequence[int], name: str) -> None:
    """Raise ``Untrusted`` unless the downbeats stand out from all else in the bar."""
    found = rival(rows, positions)
    if found > CLEAR:
        raise Untrusted(
            f"The downbeats of {name} do not stand out ({found:.2f} of them elsewhere).",
            "unclear bars",
        )
