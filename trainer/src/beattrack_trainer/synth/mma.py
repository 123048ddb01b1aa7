"""Random arrangements by MMA (Musical MIDI Accompaniment) from the grooves of its library.

The library's text says how many beats a bar of each groove has. Its compound and doubled grooves
count otherwise than a listener taps, so the table below says how many MMA beats make one label;
grooves for which this is unclear are left out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import mido
import numpy as np

from beattrack_trainer.synth.band import LEADS, melody_part, pick, program
from beattrack_trainer.synth.harmony import QUALITIES, Chord, draw_progression
from beattrack_trainer.synth.midi import (
    DRUM_CHANNEL,
    PACKAGES,
    Note,
    Score,
    SynthError,
    find_program,
    read_notes,
)

LIBRARY = Path("/usr/share/mma/lib")
LICENCE = "MMA library GPL-2.0-or-later"
NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")

# Files of stdlib written in 4 for a piece in 2 (their notes say "double the tempo"), or in 6/8.
HALVED = frozenset(
    "march polka broadway bwmarch dixie fastswing merengue samba quickstep ska "
    "dixiemarch ballad68".split()
)
# Polymetric, without a clear bar length, or not music.
LEFT_OUT = frozenset(
    "afro-cuban none metronome metronome3 metronome6 metronome68 bebop bluefolk "
    "boggiewoggie".split()
)
# Natural tempi (of the labelled beat) where a file's name tells.
TEMPI = (
    ("slow", 70), ("ballad", 74), ("68", 62), ("128", 66), ("lullaby", 75), ("hymn", 85),
    ("fast", 165), ("bebop", 180), ("swing", 140), ("jazz", 135), ("waltz", 140), ("punk", 170),
    ("march", 115), ("polka", 118), ("samba", 105), ("merengue", 125), ("ragtime", 95),
    ("dixie", 110), ("rock", 122), ("dance", 126), ("trance", 135), ("techno", 132), ("hip", 92),
    ("reggae", 80), ("funk", 104), ("twist", 150), ("jive", 165), ("foxtrot", 120), ("bossa", 125),
    ("rhumba", 110), ("mambo", 100), ("salsa", 95), ("country", 120), ("nite", 60), ("mellow", 72),
    ("zydeco", 125), ("charleston", 130),
)  # fmt: skip
# A name that says that a groove is not a main section.
PARTS = re.compile(r"(fill|intro|end|ending)[a-z0-9]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Groove:
    """A groove of the library: its file (stem), MMA beats a bar, MMA beats a label, meter."""

    name: str
    file: str
    folder: str
    bar: int
    per_label: int

    @property
    def meter(self) -> int:
        """Labelled beats a bar."""
        return self.bar // self.per_label


def parse_library(text: str, file: str, folder: str) -> list[Groove]:
    """Grooves that one library file defines, with the ``Time`` in force where each is defined."""
    bar: int | None = None
    signature = ""
    grooves: list[Groove] = []
    if file in LEFT_OUT:
        return grooves
    for raw in text.splitlines():
        words = raw.split("//")[0].split()
        if len(words) < 2:
            continue
        keyword = words[0].lower()
        if keyword == "time":
            signature, top = words[1], words[1].split("/")[0]
            bar = int(top) if top.isdigit() else None
        elif keyword == "defgroove" and bar is not None:
            # Six MMA beats are eighths of a 6/8 bar in all files that have them.
            halved = folder == "stdlib" and file in HALVED and bar == 4
            per_label = 3 if bar == 6 else 2 if halved else 1
            if bar in (2, 3, 4, 5, 6) and signature != "6/4":
                grooves.append(Groove(words[1], file, folder, bar, per_label))
    return grooves


def write_index() -> None:
    """Let MMA write its index of grooves (``mma -G``) where it is missing.

    Debian's package does so when it is installed; a copied library may lack it. Raises
    ``SynthError`` when MMA cannot write into its library.
    """
    if not LIBRARY.is_dir() or any(LIBRARY.glob("*/.mmaDB")):
        return
    command = [find_program("mma"), "-G"]
    done = subprocess.run(command, capture_output=True, timeout=600, check=False)
    if done.returncode != 0 or not any(LIBRARY.glob("*/.mmaDB")):
        raise SynthError(
            f"MMA's index of grooves is missing and cannot be written in {LIBRARY}; "
            "run `mma -G` once as root."
        )


@lru_cache(maxsize=1)
def library() -> tuple[Groove, ...]:
    """All usable grooves of the installed library; raises ``SynthError`` when there is none."""
    write_index()
    grooves: list[Groove] = []
    for path in sorted(LIBRARY.glob("*/*.mma")):
        grooves += parse_library(path.read_text("latin-1"), path.stem, path.parent.name)
    if not grooves:
        raise SynthError(
            f"MMA's library is not at {LIBRARY}; install it (Debian: apt install {PACKAGES})."
        )
    return tuple(grooves)


def natural_bpm(groove: Groove) -> float:
    """A natural tempo of a groove in labelled beats a minute, 116 where its name says nothing."""
    name = f"{groove.file} {groove.name}".lower()
    if groove.bar == 6 or groove.file == "ballad68":
        return 62.0
    return float(next((bpm for key, bpm in TEMPI if key in name), 116))


def chord_text(
    bars: int, meter: int, per_label: int, rng: np.random.Generator
) -> tuple[list[str], list[Chord]]:
    """Chords for ``bars`` bars as MMA lines and as chords in labelled beats, in one random key."""
    key = int(rng.integers(12))
    parts = [draw_progression(rng), draw_progression(rng)]
    split = meter == 4 and rng.random() < 0.2
    section = int(rng.choice([8, 16]))
    lines, chords = [], []
    for bar in range(bars):
        part = parts[(bar // section) % 2]
        picks = (
            [part[(2 * bar + h) % len(part)] for h in (0, 1)] if split else [part[bar % len(part)]]
        )
        words = []
        for half, (degree, quality) in enumerate(picks):
            root = (key + degree) % 12
            length = meter / len(picks)
            chords.append(Chord(bar * meter + half * length, length, root, QUALITIES[quality]))
            # "/" repeats a chord for one MMA beat
            rests = ["/"] * (int(length * per_label) - 1)
            words += [NAMES[root] + quality, *(rests if split else [])]
        lines.append(" ".join(words))
    return lines, chords


def sections(main: Groove, bars: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    """Groove names and numbers of bars: an intro, sections that alternate, fills and an ending."""
    siblings = [
        g
        for g in library()
        if g.file == main.file
        and g.folder == main.folder
        and (g.bar, g.per_label) == (main.bar, main.per_label)
    ]
    mains = [g.name for g in siblings if not PARTS.search(g.name)] or [main.name]
    if rng.random() < 0.15:  # a second style for contrast
        alike = [
            g
            for g in library()
            if (g.bar, g.per_label) == (main.bar, main.per_label)
            and not PARTS.search(g.name)
            and abs(natural_bpm(g) - natural_bpm(main)) < 25
        ]
        mains.append(alike[int(rng.integers(len(alike)))].name)
    extra = {k: [g.name for g in siblings if k in g.name.lower()] for k in ("fill", "intro", "end")}
    plan: list[tuple[str, int]] = []
    if extra["intro"] and rng.random() < 0.4:
        plan.append((str(rng.choice(extra["intro"])), int(rng.choice([2, 4]))))
    current = main.name
    while sum(n for _, n in plan) < bars:
        length = int(rng.choice([4, 8]))
        if extra["fill"] and rng.random() < 0.5:
            plan += [(current, length - 1), (str(rng.choice(extra["fill"])), 1)]
        else:
            plan.append((current, length))
        if rng.random() < 0.6:
            current = str(rng.choice(mains))
    if extra["end"] and rng.random() < 0.3:
        plan.append((str(rng.choice(extra["end"])), 2))
    return plan


def run_mma(lines: Sequence[str], folder: Path) -> Path:
    """Run MMA over a song text in ``folder``; returns the MIDI file. Raises ``SynthError``."""
    source, target = folder / "song.mma", folder / "song.mid"
    source.write_text("\n".join(lines) + "\n")
    # its own folder is the working folder: MMA looks for its database and rc files there too
    command = [find_program("mma"), "-f", target.name, source.name]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )
    if done.returncode != 0 or not target.exists():
        tail = [line for line in done.stdout.splitlines() if "ERROR" in line] or ["no message"]
        raise SynthError(f"MMA failed: {tail[0].strip()}.")
    return target


def check_bars(midi: mido.MidiFile, groove: Groove, bars: int) -> None:
    """Raise ``SynthError`` unless the song's own length is that of its bars.

    MMA writes the length of the song in seconds as a text event; with the tempo at 60 it counts
    MMA beats, and so proves that no groove had another bar length.
    """
    texts = [m.text for t in midi.tracks for m in t if m.type == "text"]
    seconds = next((int(t.split(":")[1]) for t in texts if t.startswith("DURATION:")), None)
    if seconds is None or abs(seconds - bars * groove.bar) > 1:
        raise SynthError(
            f"MMA's groove {groove.name} lasts {seconds} beats instead of {bars * groove.bar}."
        )


def mma_score(seconds: float, folder: Path, rng: np.random.Generator) -> Score:
    """A random arrangement of about ``seconds``; scratch files go to ``folder``."""
    grooves = library()
    # by file first: some files define dozens of near-equal grooves; odd meters a little oftener
    files = sorted({(g.folder, g.file) for g in grooves})
    odd = sorted({(g.folder, g.file) for g in grooves if g.meter != 4})
    pool = odd if rng.random() < 0.22 else files
    folder_name, file = pool[int(rng.integers(len(pool)))]
    members = [g for g in grooves if (g.folder, g.file) == (folder_name, file)]
    mains = [g for g in members if not PARTS.search(g.name)] or members
    groove = mains[int(rng.integers(len(mains)))]
    bpm = float(np.clip(natural_bpm(groove) * np.exp(rng.normal(0, 0.18)), 45, 220))
    bars = int(np.ceil(seconds * bpm / 60 / groove.meter))
    return arrange_groove(groove, bpm, bars, folder, rng)


def arrange_groove(
    groove: Groove, bpm: float, bars: int, folder: Path, rng: np.random.Generator
) -> Score:
    """A random arrangement of at least ``bars`` bars of a groove and its siblings."""
    plan = sections(groove, bars, rng)
    bars = sum(n for _, n in plan)
    chords, harmony = chord_text(bars, groove.meter, groove.per_label, rng)
    # Tempo 60: one MMA beat is one second, so that the length check below counts beats.
    text, at = ["Tempo 60", f"RndSeed {int(rng.integers(1, 10**6))}"], 0
    for name, length in plan:
        text += [f"Groove {name}", *(f"{at + i + 1} {chords[at + i]}" for i in range(length))]
        at += length
    midi_path = run_mma(text, folder)
    check_bars(mido.MidiFile(midi_path), groove, bars)
    notes, controls = read_notes(midi_path, groove.per_label)
    notes = [replace(n, length=max(n.length, 0.05)) for n in notes]
    used = {n.channel for n in notes} | {DRUM_CHANNEL}
    free = [c for c in range(16) if c not in used]
    if free and rng.random() < 0.45:
        controls += program(free[0], pick(LEADS, rng), int(rng.integers(60, 127)))
        triplet = groove.bar == 6 or groove.file == "ballad68"
        tune: list[Note] = melody_part(harmony, groove.meter, triplet, 0.0, rng)
        notes += [replace(n, channel=free[0]) for n in tune]
    positions = [i % groove.meter + 1 for i in range(bars * groove.meter)]
    return Score(
        notes,
        controls,
        positions,
        groove.meter,
        bpm,
        f"MMA {groove.folder}/{groove.file} {groove.name}",
        LICENCE,
    )
