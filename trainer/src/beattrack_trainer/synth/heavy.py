"""Heavy music: riffs on distorted guitars, a bass that doubles them, fast and hard drums.

The libraries that the other pieces are made from hold little of it, and a tracker that has heard
little of it takes 180 beats a minute for 90.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beattrack_trainer.synth.band import (
    BASS_CHANNEL,
    COMP_CHANNEL,
    LEAD_CHANNEL,
    SECOND_CHANNEL,
    melody_part,
    pick,
    program,
)
from beattrack_trainer.synth.drums import PATTERNS, drum_part
from beattrack_trainer.synth.harmony import chord_grid
from beattrack_trainer.synth.midi import Control, Note, Score

GUITARS = (29, 30, 30, 30, 28)  # overdriven, distorted, muted
BASSES = (33, 34, 34, 36)
LEADS = (29, 30, 30, 53, 81)
DRUMS = ("metal", "metal", "punk", "thrash", "double_kick", "double_kick", "gallop", "fast_rock",
         "fast_rock", "rock", "rock2", "half_time", "toms")  # fmt: skip
MOVES = (1, 3, 5, 7, 8, 10, 12, -2)  # semitones from the root
LOWEST = 38  # MIDI pitch of the lowest root


class _Stroke(NamedTuple):
    """One stroke of a riff: where and how long in beats, semitones above the root, how hard."""

    beat: float
    length: float
    move: int
    accent: bool


def heavy_score(seconds: float, rng: np.random.Generator, licence: str) -> Score:
    """A piece of about ``seconds`` of riffs over a hard drum pattern, at 95 to 215 bpm."""
    name = str(rng.choice(DRUMS))
    pattern = next(p for p in PATTERNS if p.name == name)
    bpm = float(rng.uniform(max(95.0, pattern.bpm[0]), pattern.bpm[1]))
    meter = pattern.meter
    bars = int(np.ceil(seconds * bpm / 60 / meter)) + 1
    notes = drum_part(pattern, bars, rng)
    more, controls = _guitars(bars, meter, rng)
    notes += more
    if rng.random() < 0.4:
        chords = chord_grid(bars, meter, rng)
        notes += melody_part(chords, meter, False, 0.0, rng)
        controls += program(LEAD_CHANNEL, pick(LEADS, rng), int(rng.integers(70, 110)))
    positions = [i % meter + 1 for i in range(bars * meter)]
    return Score(notes, controls, positions, meter, bpm, f"heavy {name}", licence)


def _guitars(bars: int, meter: int, rng: np.random.Generator) -> tuple[list[Note], list[Control]]:
    """One or two guitars and mostly a bass; two riffs take turns by sections of four or eight bars.

    A riff begins with its bar, and is the same at each return: that is where one hears the bar.
    """
    riffs = [_riff(int(rng.choice([1, 2])), meter, rng) for _ in range(2)]
    roots = [LOWEST + int(rng.integers(0, 8)) for _ in range(2)]
    section = int(rng.choice([4, 8]))
    double, bass = rng.random() < 0.7, rng.random() < 0.85
    short = float(rng.choice([0.5, 0.9]))  # palm-muted or ringing
    notes: list[Note] = []
    for bar in range(bars):
        turn = bar // section % 2
        riff, root = riffs[turn], roots[turn]
        bars_long = max(1, round((riff[-1].beat + riff[-1].length) / meter))
        inside = bar % section % bars_long * meter
        for stroke in riff:
            if not inside <= stroke.beat < inside + meter:
                continue
            beat = bar * meter + stroke.beat - inside
            pitch = root + stroke.move
            hard = (112 if stroke.accent else 86) + float(rng.normal(0, 5))
            velocity = int(np.clip(hard, 30, 127))
            length = stroke.length * (0.95 if stroke.accent else short)
            tones = (0, 7, 12) if stroke.accent or short > 0.6 else (0, 7)
            for tone in tones:
                notes.append(Note(beat, length, pitch + tone, velocity, COMP_CHANNEL))
                if double:
                    notes.append(Note(beat, length, pitch + tone, velocity, SECOND_CHANNEL))
            if bass:
                notes.append(Note(beat, length, pitch - 12, velocity, BASS_CHANNEL))
    controls = program(COMP_CHANNEL, pick(GUITARS, rng), int(rng.integers(80, 120)))
    controls += program(SECOND_CHANNEL, pick(GUITARS, rng), int(rng.integers(60, 110)))
    controls += program(BASS_CHANNEL, pick(BASSES, rng), int(rng.integers(80, 120)))
    return notes, controls


def _riff(bars: int, meter: int, rng: np.random.Generator) -> list[_Stroke]:
    """A riff that fills ``bars`` bars: picked without a pause, galloping, in a cell, or held."""
    kind = rng.choice(["eighths", "eighths", "sixteenths", "gallop", "cell", "cell", "held"])
    cells = {"eighths": (0.0, 0.5), "sixteenths": (0.0, 0.25, 0.5, 0.75),
             "gallop": (0.0, 0.5, 0.75), "cell": (0.0, 0.5), "held": (0.0,)}  # fmt: skip
    onsets = [b + c for b in range(bars * meter) for c in cells[str(kind)]]
    keep = {"cell": 0.65, "held": 0.4}.get(str(kind), 0.97)
    onsets = [b for b in onsets if b == 0 or rng.random() < keep]
    ends = [*onsets[1:], float(bars * meter)]
    strokes, move = [], 0
    for begin, end in zip(onsets, ends, strict=True):
        before = move
        if begin == 0 or rng.random() < 0.5:
            move = 0
        elif rng.random() < (0.5 if begin % 1 == 0 else 0.15):
            move = int(rng.choice(MOVES))
        accent = begin == 0 or move != before or rng.random() < 0.1
        strokes.append(_Stroke(begin, end - begin, move, bool(accent)))
    return strokes
