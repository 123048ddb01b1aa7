"""Chords: progressions of many styles, and where in the bars they change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "M7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "m7b5": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
    "sus4": (0, 5, 7),
    "6": (0, 4, 7, 9),
    "9": (0, 4, 7, 10, 14),
    "5": (0, 7),
}

# Degrees as semitones above the key, one chord a bar.
PROGRESSIONS: tuple[tuple[str, tuple[tuple[int, str], ...]], ...] = (
    ("pop", ((0, ""), (7, ""), (9, "m"), (5, ""))),
    ("pop", ((9, "m"), (5, ""), (0, ""), (7, ""))),
    ("pop", ((0, ""), (9, "m"), (5, ""), (7, ""))),
    ("pop", ((0, ""), (5, ""), (0, ""), (7, ""))),
    ("pop", ((0, ""), (5, ""), (9, "m"), (7, "sus4"))),
    ("pop", ((0, ""), (4, "m"), (5, ""), (7, ""))),
    ("pop", ((0, ""), (7, ""), (9, "m"), (4, "m"), (5, ""), (0, ""), (5, ""), (7, ""))),
    ("rock", ((0, "5"), (10, "5"), (5, "5"), (0, "5"))),
    ("rock", ((0, ""), (10, ""), (5, ""), (5, ""))),
    ("rock", ((0, "5"), (0, "5"), (3, "5"), (5, "5"))),
    ("minor", ((0, "m"), (8, ""), (3, ""), (10, ""))),
    ("minor", ((0, "m"), (5, "m"), (10, ""), (3, ""))),
    ("minor", ((0, "m"), (10, ""), (8, ""), (7, "7"))),
    ("minor", ((0, "m"), (0, "m"), (5, "m"), (7, "7"))),
    ("modal", ((0, "m7"), (5, "7"))),
    ("modal", ((0, "m7"), (0, "m7"), (10, "M7"), (10, "M7"))),
    ("jazz", ((2, "m7"), (7, "7"), (0, "M7"), (9, "7"))),
    ("jazz", ((0, "M7"), (9, "m7"), (2, "m7"), (7, "9"))),
    ("jazz", ((2, "m7b5"), (7, "7"), (0, "m7"), (0, "6"))),
    (
        "jazz",
        ((0, "6"), (1, "dim7"), (2, "m7"), (7, "7"), (4, "m7"), (9, "7"), (2, "m7"), (7, "7")),
    ),
    (
        "blues",
        (
            (0, "7"),
            (0, "7"),
            (0, "7"),
            (0, "7"),
            (5, "7"),
            (5, "7"),
            (0, "7"),
            (0, "7"),
            (7, "7"),
            (5, "7"),
            (0, "7"),
            (7, "7"),
        ),
    ),
    (
        "blues",
        (
            (0, "m7"),
            (5, "m7"),
            (0, "m7"),
            (0, "m7"),
            (5, "m7"),
            (5, "m7"),
            (0, "m7"),
            (0, "m7"),
            (8, "7"),
            (7, "7"),
            (0, "m7"),
            (7, "7"),
        ),
    ),
    ("classical", ((0, ""), (7, "7"), (0, ""), (5, ""), (0, ""), (2, "m"), (7, "7"), (0, ""))),
    ("one", ((0, ""),)),
    ("one", ((0, "m"),)),
)


@dataclass(frozen=True)
class Chord:
    """A chord that sounds from ``beat`` for ``length`` beats: root pitch class and intervals."""

    beat: float
    length: float
    root: int
    intervals: tuple[int, ...]


def draw_progression(rng: np.random.Generator, style: str | None = None) -> list[tuple[int, str]]:
    """A progression as (semitones above the key, quality), of one style or of any."""
    pool = [p for name, p in PROGRESSIONS if style is None or name == style]
    return list(pool[int(rng.integers(len(pool)))])


def chord_grid(bars: int, meter: int, rng: np.random.Generator) -> list[Chord]:
    """Chords for ``bars`` bars: one or two progressions in one key, changes on downbeats."""
    key = int(rng.integers(12))
    parts = [draw_progression(rng) for _ in range(2)]
    section = int(rng.choice([8, 16]))
    bars_per_chord = int(rng.choice([1, 1, 1, 2])) if meter < 6 else 1
    split = meter == 4 and rng.random() < 0.15  # two chords a bar
    chords = []
    for bar in range(bars):
        part = parts[(bar // section) % 2]
        if split:
            for half in range(2):
                degree, quality = part[(2 * bar + half) % len(part)]
                root = (key + degree) % 12
                chords.append(Chord(bar * meter + 2 * half, 2, root, QUALITIES[quality]))
        else:
            degree, quality = part[(bar // bars_per_chord) % len(part)]
            root = (key + degree) % 12
            chords.append(Chord(bar * meter, meter, root, QUALITIES[quality]))
    return chords
