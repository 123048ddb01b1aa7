"""Drum patterns for generated tracks: one string of steps for each drum, one bar long.

``X`` is an accent, ``x`` a plain stroke, ``o`` a ghost stroke, ``.`` nothing. The steps of a bar
are spread evenly over its beats, so twelve steps over four beats are triplets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beattrack_trainer.synth.midi import DRUM_CHANNEL, Note

VELOCITY = {"X": 115, "x": 92, "o": 52}
KICK, RIM, SNARE, CLAP, CLOSED, PEDAL, OPEN = 36, 37, 38, 39, 42, 44, 46
TOMS = (41, 45, 48, 50)
CRASH, RIDE, TAMBOURINE, COWBELL, SHAKER, CLAVES = 49, 51, 54, 56, 70, 75


@dataclass(frozen=True)
class Pattern:
    """One bar of drums: ``meter`` labelled beats, and a string of steps for each GM drum note."""

    name: str
    meter: int
    bpm: tuple[float, float]  # range in which it sounds natural, labelled beats a minute
    drums: dict[int, str]
    triplet: bool = False  # the beat divides by three: shuffle, 6/8, 12/8


PATTERNS: tuple[Pattern, ...] = (
    Pattern("rock", 4, (85, 170), {KICK: "X...X...", SNARE: "..X...X.", CLOSED: "xoxoxoxo"}),
    Pattern("rock2", 4, (80, 150), {KICK: "X..xX...", SNARE: "..X...X.", CLOSED: "xxxxxxxx"}),
    Pattern("rock3", 4, (80, 150), {KICK: "X.....x.x.x.....", SNARE: "....X.......X...",
                                    CLOSED: "x.o.x.o.x.o.x.o."}),
    Pattern("ridepop", 4, (90, 160), {KICK: "X..x.x..", SNARE: "..X...X.", RIDE: "xoxoxoxo"}),
    Pattern("punk", 4, (150, 210), {KICK: "X.x.X.x.", SNARE: ".x.x.x.x", OPEN: "x.x.x.x."}),
    Pattern("metal", 4, (100, 190), {KICK: "XxXxXxXx", SNARE: "..X...X.", CRASH: "x.x.x.x."}),
    Pattern("thrash", 4, (160, 215), {KICK: "X..x.X.x", SNARE: ".x.x.x.x", RIDE: "x.x.x.x."}),
    Pattern("double_kick", 4, (125, 210), {KICK: "xxxxxxxxxxxxxxxx", SNARE: "....X.......X...",
                                           CRASH: "x...x...x...x..."}),
    Pattern("gallop", 4, (120, 200), {KICK: "X.xxx.xxx.xxx.xx", SNARE: "....X.......X...",
                                      OPEN: "x...x...x...x..."}),
    Pattern("fast_rock", 4, (140, 205), {KICK: "X..xX...", SNARE: "..X...X.", OPEN: "x.x.x.x."}),
    Pattern("four", 4, (105, 145), {KICK: "X...X...X...X...", CLAP: "....X.......X...",
                                    OPEN: "..x...x...x...x.", CLOSED: "x.o.x.o.x.o.x.o."}),
    Pattern("four_plain", 4, (110, 150), {KICK: "X.X.X.X.", OPEN: ".x.x.x.x"}),
    Pattern("disco", 4, (105, 135), {KICK: "X.X.X.X.", SNARE: "..X...X.", CLOSED: "x.x.x.x.",
                                     OPEN: ".x.x.x.x"}),
    Pattern("half_time", 4, (110, 170), {KICK: "X.......", SNARE: "....X...", CLOSED: "x.x.x.x."}),
    Pattern("trap", 4, (120, 160), {KICK: "X.....x...x.....", SNARE: "........X.......",
                                    CLOSED: "x.x.x.xxx.x.xxxx"}),
    Pattern("ballad", 4, (55, 90), {KICK: "X.......x.x.....", SNARE: "....X.......X...",
                                    CLOSED: "x.x.x.x.x.x.x.x."}),
    Pattern("side_ballad", 4, (55, 85), {KICK: "X......xX.......", RIM: "....X.......X...",
                                         CLOSED: "x.o.x.o.x.o.x.o."}),
    Pattern("funk", 4, (85, 118), {KICK: "X.x....x..x.....", SNARE: "....X..o.o..X..o",
                                   CLOSED: "x.x.x.x.x.x.x.x."}),
    Pattern("funk16", 4, (85, 115), {KICK: "X..x..x...xx..x.", SNARE: "....X..o.o..X...",
                                     CLOSED: "xoxoxoxoxoxoxoxo"}),
    Pattern("breakbeat", 4, (95, 175), {KICK: "X.X.......XX....", SNARE: "....X..o.o..X..o",
                                        RIDE: "x.x.x.x.x.x.x.x."}),
    Pattern("drum_n_bass", 4, (160, 180), {KICK: "X.........x.....", SNARE: "....X.......X...",
                                           CLOSED: "x.x.x.x.x.x.x.x."}),
    Pattern("hiphop", 4, (75, 105), {KICK: "X..x...x..x.....", SNARE: "....X.......X...",
                                     CLOSED: "x.x.x.xxx.x.x.x."}),
    Pattern("boom_bap", 4, (80, 98), {KICK: "X....x...xx.", SNARE: "...X.....X..",
                                      CLOSED: "x.xx.xx.xx.x"}, triplet=True),
    Pattern("shuffle", 4, (85, 150), {KICK: "X.....X.....", SNARE: "...X.....X..",
                                      CLOSED: "x.xx.xx.xx.x"}, triplet=True),
    Pattern("swing", 4, (100, 220), {RIDE: "X..x.xX..x.x", PEDAL: "...x.....x..",
                                     KICK: "o..o..o..o..", SNARE: ".....o.....o"}, triplet=True),
    Pattern("brushes", 4, (60, 130), {RIDE: "x..x.ox..x.o", PEDAL: "...x.....x.."}, triplet=True),
    Pattern("12/8", 4, (50, 80), {KICK: "X.....x....x", SNARE: "...X.....X..",
                                  CLOSED: "xxxxxxxxxxxx"}, triplet=True),
    Pattern("one_drop", 4, (62, 88), {KICK: "....X.......X...", RIM: "....X.......X...",
                                      CLOSED: "x.x.x.x.x.x.x.x."}),
    Pattern("steppers", 4, (62, 90), {KICK: "X...X...X...X...", RIM: "....X.......X...",
                                      CLOSED: "..x...x...x...x."}),
    Pattern("reggaeton", 4, (85, 105), {KICK: "X...X...X...X...", SNARE: "...x..x....x..x."}),
    Pattern("bossa", 4, (100, 160), {KICK: "X..xX..x", RIM: "x..x..x.", CLOSED: "xxxxxxxx"}),
    Pattern("latin", 4, (90, 130), {KICK: "x.....X.x.....X.", CLAVES: "X..X..X...X.X...",
                                    COWBELL: "X...x.x.X...x.x.", SHAKER: "x.o.x.o.x.o.x.o."}),
    Pattern("samba", 2, (85, 125), {KICK: "x..xX..x", SHAKER: "XooxXoox", RIM: "x.x..x.x"}),
    Pattern("march", 2, (95, 130), {KICK: "X...x...", SNARE: "..X...Xo"}),
    Pattern("polka", 2, (95, 140), {KICK: "X.x.", SNARE: ".X.X"}),
    Pattern("train", 2, (90, 125), {KICK: "X.x.", SNARE: "ooXoooXo"}),
    Pattern("6/8", 2, (45, 85), {KICK: "X....x", SNARE: "...X..", CLOSED: "xxxxxx"}, triplet=True),
    Pattern("6/8 b", 2, (50, 80), {KICK: "X.x...", RIM: "...X..", RIDE: "xoxxox"}, triplet=True),
    Pattern("tarantella", 2, (100, 150), {KICK: "X..x..", TAMBOURINE: "xoxxox"}, triplet=True),
    Pattern("waltz", 3, (85, 190), {KICK: "X.....", SNARE: "..x.x.", CLOSED: "x.x.x."}),
    Pattern("rock34", 3, (80, 150), {KICK: "X..x..", SNARE: "....X.", CLOSED: "xoxoxo"}),
    Pattern("jazz waltz", 3, (110, 190), {KICK: "X........", RIDE: "X..x.xx..",
                                          PEDAL: "...x....."}, triplet=True),
    Pattern("5/4", 5, (100, 180), {KICK: "X..x..x...", SNARE: "....X...X.", RIDE: "xoxoxoxoxo"}),
    Pattern("7/4", 7, (110, 190), {KICK: "X...x...x.....", SNARE: "..X...X...X.X.",
                                   CLOSED: "xoxoxoxoxoxoxo"}),
    Pattern("sparse", 4, (60, 150), {KICK: "X...", SNARE: "..X."}),
    Pattern("shaker", 4, (65, 140), {SHAKER: "x.o.x.o.x.o.x.o.", TAMBOURINE: "....x.......x..."}),
    Pattern("kick", 4, (60, 150), {KICK: "X...", CLAP: "..x."}),
    Pattern("toms", 4, (70, 140), {41: "X..x..x.", 45: "....x..x", CLOSED: "x.x.x.x."}),
)  # fmt: skip


def bar_notes(
    pattern: Pattern,
    bar: int,
    swing: float = 0.0,
    leave: float = 0.0,
    rng: np.random.Generator | None = None,
) -> list[Note]:
    """Notes of one bar; ``swing`` moves every second half-beat later, in beats (0 to 0.17).

    ``leave`` is the chance to leave out a stroke that is not an accent.
    """
    notes = []
    for pitch, steps in pattern.drums.items():
        per_beat = len(steps) / pattern.meter
        for step, mark in enumerate(steps):
            if mark == "." or (rng is not None and mark != "X" and rng.random() < leave):
                continue
            beat = step / per_beat
            fraction = beat % 1.0
            if swing and not pattern.triplet:
                # piecewise linear: the half-beat moves by `swing`, whole beats stay
                late = fraction * 2 if fraction <= 0.5 else (1 - fraction) * 2
                beat += swing * late
            spread = 0.0 if rng is None else float(rng.normal(0, 6))
            velocity = int(np.clip(VELOCITY[mark] + spread, 12, 127))
            notes.append(Note(bar * pattern.meter + beat, 0.1, pitch, velocity, DRUM_CHANNEL))
    return notes


def fill_notes(pattern: Pattern, bar: int, rng: np.random.Generator) -> list[Note]:
    """A fill over the last beat or two of a bar: snare and falling toms, growing louder."""
    length = 1 if pattern.meter < 4 else int(rng.choice([1, 2]))
    per_beat = 3 if pattern.triplet else int(rng.choice([2, 4]))
    steps = length * per_beat
    drums = [SNARE, *TOMS[::-1]]
    notes = []
    for step in range(steps):
        if rng.random() < 0.15:
            continue
        pitch = drums[min(len(drums) - 1, int(step / steps * len(drums) + rng.integers(0, 2)))]
        beat = (bar + 1) * pattern.meter - length + step / per_beat
        velocity = int(70 + 45 * step / steps)
        notes.append(Note(beat, 0.1, pitch, velocity, DRUM_CHANNEL))
    return notes


def drum_part(
    pattern: Pattern, bars: int, rng: np.random.Generator, swing: float = 0.0
) -> list[Note]:
    """Drums for ``bars`` bars with fills, crashes, left-out drums and small changes by section."""
    section = int(rng.choice([4, 8]))
    fills = rng.random() < 0.7
    notes: list[Note] = []
    pitches = list(pattern.drums)
    dropped: set[int] = set()
    for bar in range(bars):
        if bar % section == 0:
            lose = len(pitches) > 2 and rng.random() < 0.3
            dropped = {pitches[int(rng.integers(len(pitches)))]} if lose else set()
            if bar and rng.random() < 0.5:
                notes.append(Note(bar * pattern.meter, 0.5, CRASH, 105, DRUM_CHANNEL))
        ends = fills and bar % section == section - 1
        fill = fill_notes(pattern, bar, rng) if ends else []
        from_beat = min((n.beat for n in fill), default=float("inf"))
        plain = bar_notes(pattern, bar, swing, 0.06, rng)
        notes += [n for n in plain if n.pitch not in dropped and n.beat < from_beat - 1e-6] + fill
    return notes
