"""Random accompaniment on a beat grid: chords, bass, comping, arpeggios, pads and melody.

Harmony changes on downbeats (at times in mid-bar), which is what a downbeat tracker can hear.
"""

from __future__ import annotations

import mido
import numpy as np

from beattrack_trainer.synth.harmony import Chord, chord_grid
from beattrack_trainer.synth.midi import Control, Note

BASSES = (32, 33, 33, 34, 35, 36, 37, 38, 39, 58, 43)
KEYS = (0, 1, 2, 4, 5, 6, 7, 11, 12, 16, 17, 18, 19, 21, 24, 25, 26, 27, 28, 29, 30, 45, 62, 63, 81)
PADS = (48, 49, 50, 51, 52, 88, 89, 90, 91, 92, 94, 95, 16, 18, 19, 61)
LEADS = (
    52,
    53,
    54,
    56,
    57,
    60,
    61,
    64,
    65,
    66,
    68,
    71,
    73,
    74,
    40,
    42,
    22,
    26,
    29,
    30,
    80,
    81,
    85,
    11,
    0,
    4,
    110,
    46,
    75,
    79,
)
BASS_CHANNEL, COMP_CHANNEL, PAD_CHANNEL, LEAD_CHANNEL, SECOND_CHANNEL = 0, 1, 2, 3, 4


def rhythm_cell(
    meter: int, triplet: bool, density: float, rng: np.random.Generator, offbeat: bool = False
) -> list[float]:
    """Onsets of a random bar in beats; strong places are likelier, ``density`` from 0 to 1."""
    per_beat = 3 if triplet else 4
    onsets = []
    for step in range(meter * per_beat):
        inside = step % per_beat
        if step == 0:
            chance = 0.95
        elif inside == 0:
            chance = 0.3 + 0.5 * density
        elif inside * 2 == per_beat or (triplet and inside == 2):
            chance = 0.1 + 0.6 * density
        else:
            chance = 0.25 * density**2
        if offbeat:
            chance = 0.9 if inside * 2 == per_beat or (triplet and inside == 2) else 0.03
        if rng.random() < chance:
            onsets.append(step / per_beat)
    return onsets or [0.0]


def _swung(beat: float, swing: float) -> float:
    fraction = beat % 1.0
    return beat + swing * (fraction * 2 if fraction <= 0.5 else (1 - fraction) * 2)


def bass_part(
    chords: list[Chord], meter: int, triplet: bool, swing: float, rng: np.random.Generator
) -> list[Note]:
    """A bass line: roots, walking quarters, octaves or a repeated syncopated cell."""
    kind = rng.choice(["cell", "cell", "root", "walk", "octave", "pulse"])
    cell = rhythm_cell(meter, triplet, float(rng.uniform(0.1, 0.7)), rng)
    notes = []
    for chord in chords:
        low = 28 + (chord.root - 28) % 12 + int(rng.choice([0, 0, 12]))
        if kind == "root":
            onsets = [0.0]
        elif kind == "walk":
            onsets = [float(b) for b in range(int(chord.length))]
        elif kind in ("octave", "pulse"):
            onsets = [b / 2 for b in range(int(2 * chord.length))]
        else:
            inside = chord.beat % meter
            onsets = [b - inside for b in cell if inside <= b < inside + chord.length] or [0.0]
        for i, onset in enumerate(onsets):
            pitch = low
            if kind == "walk" and onset:
                pitch = low + int(rng.choice([*chord.intervals, 2, 5]))
            elif kind == "octave" and i % 2:
                pitch = low + 12
            elif kind == "cell" and onset and rng.random() < 0.3:
                pitch = low + int(rng.choice(chord.intervals))
            until = onsets[i + 1] if i + 1 < len(onsets) else chord.length
            length = (until - onset) * float(rng.uniform(0.5, 0.98))
            velocity = int(np.clip(rng.normal(100 if not onset else 88, 7), 30, 127))
            notes.append(
                Note(_swung(chord.beat + onset, swing), length, pitch, velocity, BASS_CHANNEL)
            )
    return notes


def comp_part(
    chords: list[Chord],
    meter: int,
    triplet: bool,
    swing: float,
    rng: np.random.Generator,
    channel: int = COMP_CHANNEL,
    carried: bool = True,
) -> list[Note]:
    """Chords in rhythm: a syncopated cell, offbeats, quarters, arpeggios or oom-pah.

    Offbeats and oom-pah need another part on the beats (``carried``): alone they would be heard
    as the beats themselves.
    """
    kinds = ["cell", "cell", "quarters", "arpeggio", "arpeggio", "offbeat", "oompah"]
    kind = rng.choice(kinds if carried else kinds[:-2])
    cell = rhythm_cell(meter, triplet, float(rng.uniform(0.1, 0.8)), rng, kind == "offbeat")
    per_beat = 3 if triplet else int(rng.choice([2, 2, 4]))
    order = rng.permutation(8)
    base = int(rng.choice([48, 55, 60]))
    notes = []
    for chord in chords:
        tones = sorted(base + (chord.root + i - base) % 12 for i in chord.intervals)
        inside = chord.beat % meter
        if kind == "arpeggio":
            ladder = [*tones, *(t + 12 for t in tones)]
            for step in range(int(chord.length * per_beat)):
                pitch = ladder[int(order[step % 8]) % len(ladder)]
                beat = _swung(chord.beat + step / per_beat, swing)
                velocity = int(np.clip(rng.normal(88 if step == 0 else 74, 6), 25, 127))
                notes.append(Note(beat, 1.2 / per_beat, pitch, velocity, channel))
            continue
        if kind == "quarters":
            onsets = [float(b) for b in range(int(chord.length))]
        elif kind == "oompah":
            onsets = [b for b in range(int(chord.length)) if (inside + b) % meter != 0] or [0.0]
        else:
            onsets = [b - inside for b in cell if inside <= b < inside + chord.length]
        shortness = float(rng.choice([0.3, 0.9]))
        for i, onset in enumerate(onsets):
            until = onsets[i + 1] if i + 1 < len(onsets) else chord.length
            velocity = int(np.clip(rng.normal(84, 7), 25, 127))
            for pitch in tones:
                beat = _swung(chord.beat + onset, swing)
                notes.append(Note(beat, (until - onset) * shortness, pitch, velocity, channel))
    return notes


def pad_part(chords: list[Chord], rng: np.random.Generator) -> list[Note]:
    """Held chords; a chord that does not change is held on."""
    notes: list[Note] = []
    base = int(rng.choice([48, 55, 60]))
    held: Chord | None = None
    for chord in chords:
        same = held is not None and (held.root, held.intervals) == (chord.root, chord.intervals)
        for i in chord.intervals:
            pitch = base + (chord.root + i - base) % 12
            if same and notes:
                for note in notes[-len(chord.intervals) :]:
                    note.length = chord.beat + chord.length - note.beat
                break
            notes.append(Note(chord.beat, chord.length * 0.98, pitch, 76, PAD_CHANNEL))
        held = chord
    return notes


def melody_part(
    chords: list[Chord], meter: int, triplet: bool, swing: float, rng: np.random.Generator
) -> list[Note]:
    """A sung-like line: two-bar phrases that return, chord tones on strong beats, rests."""
    density = float(rng.uniform(0.1, 0.6))
    phrases = [[rhythm_cell(meter, triplet, density, rng) for _ in range(2)] for _ in range(2)]
    pitch = int(rng.integers(60, 76))
    bars = int(max(c.beat + c.length for c in chords) // meter)
    notes = []
    rest = rng.random(bars) < 0.2
    behind = float(rng.uniform(0, 0.04))  # singers come a little after the beat
    for bar in range(bars):
        if rest[bar]:
            continue
        cell = phrases[(bar // 4) % 2][bar % 2]
        for i, onset in enumerate(cell):
            beat = bar * meter + onset
            chord = next((c for c in chords if c.beat <= beat < c.beat + c.length), chords[-1])
            step = int(rng.choice([-5, -3, -2, -1, 0, 0, 1, 2, 3, 5]))
            pitch = int(np.clip(pitch + step, 55, 84))
            if onset % 1 == 0:
                tones = [o + (chord.root + t) % 12 for o in (48, 60, 72) for t in chord.intervals]
                pitch = min(tones, key=lambda t: abs(t - pitch))
            until = cell[i + 1] if i + 1 < len(cell) else meter
            length = (until - onset) * float(rng.uniform(0.6, 1.0))
            velocity = int(np.clip(rng.normal(95, 9), 40, 127))
            notes.append(Note(_swung(beat, swing) + behind, length, pitch, velocity, LEAD_CHANNEL))
    return notes


def program(channel: int, number: int, volume: int = 100, beat: float = 0.0) -> list[Control]:
    """Controls that choose an instrument (GM program, 0-based) and a volume for a channel."""
    change = mido.Message("program_change", channel=channel, program=number)
    level = mido.Message("control_change", channel=channel, control=7, value=volume)
    return [Control(beat, change), Control(beat, level)]


def pick(pool: tuple[int, ...], rng: np.random.Generator) -> int:
    """One of a pool of numbers."""
    return int(pool[int(rng.integers(len(pool)))])


def band(
    bars: int,
    meter: int,
    triplet: bool,
    rng: np.random.Generator,
    chance: float = 0.8,
    swing: float = 0.0,
) -> tuple[list[Note], list[Control]]:
    """A random band over ``bars`` bars: each part is there with about ``chance``.

    ``swing`` is how far the half-beat moves late, in beats; a triplet beat ignores it.
    """
    chords = chord_grid(bars, meter, rng)
    swing = 0.0 if triplet else swing
    notes: list[Note] = []
    controls: list[Control] = []
    if rng.random() < chance:
        notes += bass_part(chords, meter, triplet, swing, rng)
        controls += program(BASS_CHANNEL, pick(BASSES, rng), int(rng.integers(80, 127)))
    if rng.random() < chance or not notes:
        notes += comp_part(chords, meter, triplet, swing, rng, carried=bool(notes))
        controls += program(COMP_CHANNEL, pick(KEYS, rng), int(rng.integers(50, 110)))
    if rng.random() < chance * 0.5:
        notes += pad_part(chords, rng)
        controls += program(PAD_CHANNEL, pick(PADS, rng), int(rng.integers(40, 95)))
    if rng.random() < chance * 0.6:
        notes += melody_part(chords, meter, triplet, swing, rng)
        controls += program(LEAD_CHANNEL, pick(LEADS, rng), int(rng.integers(70, 127)))
    if rng.random() < chance * 0.3:
        notes += comp_part(chords, meter, triplet, swing, rng, SECOND_CHANNEL, carried=False)
        controls += program(SECOND_CHANNEL, pick(KEYS, rng), int(rng.integers(40, 90)))
    return notes, controls
