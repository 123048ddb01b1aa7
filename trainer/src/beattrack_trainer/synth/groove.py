"""Human drum performances of the Groove MIDI Dataset, alone or with a generated band."""

from __future__ import annotations

import csv
import tarfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from beattrack_trainer.synth.band import band
from beattrack_trainer.synth.midi import (
    DRUM_CHANNEL,
    Control,
    Note,
    Score,
    SynthError,
    read_notes,
    shifted,
)

LICENCE = "Groove MIDI Dataset CC BY 4.0"

# The module of the recordings has notes of its own for rims and edges; General MIDI has these.
TO_GENERAL_MIDI = {22: 42, 26: 46, 58: 43, 40: 38, 23: 42, 21: 44, 27: 39}

# Meters whose labelled beat is the file's quarter; eighth meters are left out, and the chacarera,
# which is in 6/8 over 3/4.
METERS = {"4-4": 4, "3-4": 3, "5-4": 5}
MARKED_SHARE = 0.85  # of the beats must have a note near
SPREAD_MS = 24.0  # median scatter of notes about the beats; 15 is usual
TRIPLET_STYLES = ("shuffle", "blues", "swing", "12-8", "6-8")


@dataclass(frozen=True)
class Performance:
    """One recording: its MIDI file, style, tempo of the quarter, meter and kind (beat or fill)."""

    path: Path
    style: str
    bpm: float
    meter: int
    kind: str
    seconds: float


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive (or accept a folder) and return the folder; raises ``ValueError``."""
    if archive.is_dir():
        return archive
    try:
        with tarfile.open(archive) as tar:
            # the "data" filter is missing from early 3.10 and 3.11 releases
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, filter="data")
            else:
                tar.extractall(folder)
    except (OSError, tarfile.TarError) as error:
        raise ValueError(
            f"{archive} is neither a folder nor a readable tar archive: {error}."
        ) from error
    return folder


@lru_cache(maxsize=2)
def performances(folder: Path) -> tuple[Performance, ...]:
    """All usable recordings below ``folder``; raises ``SynthError`` without an ``info.csv``."""
    tables = sorted(folder.rglob("info.csv"))
    if not tables:
        raise SynthError(f"{folder} holds no info.csv of the Groove MIDI Dataset.")
    found = []
    with tables[0].open(newline="") as file:
        for row in csv.DictReader(file):
            meter = METERS.get(row["time_signature"])
            if meter is None or "chacarera" in row["style"]:
                continue
            path = tables[0].parent / row["midi_filename"]
            found.append(
                Performance(
                    path,
                    row["style"],
                    float(row["bpm"]),
                    meter,
                    row["beat_type"],
                    float(row["duration"]),
                )
            )
    return tuple(found)


@lru_cache(maxsize=64)
def performance_notes(performance: Performance) -> tuple[tuple[Note, ...], int]:
    """Drum notes of a recording in beats, mapped to General MIDI, and its length in whole bars.

    Drummers play some 12 ms ahead of the click in the median, some of them 40: the beat that a
    listener hears is the drummer's, so the notes are moved by the recording's median distance
    from the grid. Raises ``SynthError`` for a recording that is not on its grid.
    """
    notes, _ = read_notes(performance.path)
    mapped = [
        replace(
            n,
            channel=DRUM_CHANNEL,
            pitch=TO_GENERAL_MIDI.get(n.pitch, n.pitch),
            length=max(n.length, 0.05),
        )
        for n in notes
    ]
    if not mapped:
        raise SynthError(f"{performance.path.name} holds no notes.")
    bars = max(1, round((max(n.beat for n in mapped) + 0.3) / performance.meter))
    end = bars * performance.meter
    if performance.kind == "beat":
        lead = grid_offset(mapped, performance, bars)
        mapped = shifted(mapped, -lead)
    return tuple(n for n in mapped if n.beat < end - 0.1), bars


def grid_offset(notes: list[Note], performance: Performance, bars: int) -> float:
    """Median distance (beats) of the notes near a beat from it, after checks of the grid.

    Raises ``SynthError`` if many beats have no note, if the notes scatter about the beats, or if
    the bass drum keeps away from the first beat of the bar: bars may then be shifted.
    """
    beats = np.array([n.beat for n in notes])
    distance = beats - np.round(beats)
    near = np.abs(distance) < 0.15
    total = bars * performance.meter
    marked = len(set(np.round(beats[near]).astype(int))) / total
    lead = float(np.median(distance[near])) if near.any() else 1.0
    spread_ms = float(np.median(np.abs(distance[near] - lead))) * 6e4 / performance.bpm
    if marked < MARKED_SHARE or spread_ms > SPREAD_MS:
        raise SynthError(f"{performance.path.name} is off its grid.")
    kicks = np.array([n.beat for n in notes if n.pitch in (35, 36)])
    kicks = np.round(kicks[np.abs(kicks - np.round(kicks)) < 0.2]).astype(int) % performance.meter
    counts = np.bincount(kicks, minlength=performance.meter)
    offbeat_style = performance.style.split("/")[0] in ("reggae", "latin", "afrocuban")
    if counts.sum() > 8 and counts[0] < 0.5 * counts.max() and not offbeat_style:
        raise SynthError(f"{performance.path.name} has its bass drum off the downbeat.")
    return lead


def drum_track(
    folder: Path,
    bars: int,
    rng: np.random.Generator,
    meter: int | None = None,
) -> tuple[list[Note], int, Performance]:
    """Drums for at least ``bars`` bars: one recording, gone on with fills and recordings alike."""
    everything = performances(folder)
    mains = [
        p for p in everything if p.kind == "beat" and p.seconds > 8 and meter in (None, p.meter)
    ]
    if not mains:
        raise SynthError(f"The Groove MIDI Dataset has no recording in {meter}/4.")
    if meter is None and rng.random() < 0.08:
        mains = [p for p in mains if p.meter != 4]
    styles = sorted({p.style.split("/")[0] for p in mains})
    # half by style, half by recording: rock is two fifths of the data
    style = styles[int(rng.integers(len(styles)))] if rng.random() < 0.5 else None
    mains = [p for p in mains if style is None or p.style.split("/")[0] == style]
    main, loaded, at = _first_good(mains, rng)
    notes = list(loaded)
    family = main.style.split("/")[0]
    alike = [p for p in everything if p.style.split("/")[0] == family and p.meter == main.meter]
    if at > bars and rng.random() < 0.7:  # somewhere within a long recording
        first = int(rng.integers(0, at - bars + 1)) * main.meter
        # -0.2: a first downbeat that the drummer played early stays
        notes = shifted([n for n in notes if n.beat >= first - 0.2], -first)
        at -= first // main.meter
    while at < bars:
        nearby = [p for p in alike if abs(p.bpm - main.bpm) < 20] or alike
        other = main if rng.random() < 0.5 else nearby[int(rng.integers(len(nearby)))]
        try:
            more, length = performance_notes(other)
        except SynthError:
            more, length = loaded, performance_notes(main)[1]
        notes += shifted(more, at * main.meter)
        at += length
    return notes, at, main


def _first_good(
    pool: list[Performance], rng: np.random.Generator
) -> tuple[Performance, tuple[Note, ...], int]:
    """The first of a shuffled pool that passes the checks, with its notes and bars."""
    for index in rng.permutation(len(pool)):
        performance = pool[int(index)]
        try:
            return performance, *performance_notes(performance)
        except SynthError:
            continue
    raise SynthError(f"None of {len(pool)} recordings of the Groove MIDI Dataset is on its grid.")


def groove_score(seconds: float, folder: Path, rng: np.random.Generator) -> Score:
    """A human drum performance of about ``seconds``, in four of five cases with a band."""
    # a first guess of the bars at a middling tempo; the clip to `seconds` comes later
    notes, bars, main = drum_track(folder, int(np.ceil(seconds * 150 / 60 / 4)) + 1, rng)
    bpm = float(np.clip(main.bpm * np.exp(rng.normal(0, 0.1)), 50, 220))
    controls: list[Control] = []
    if rng.random() < 0.8:
        triplet = any(word in main.style for word in TRIPLET_STYLES)
        swing = 0.16 if "jazz" in main.style else 0.0
        more, controls = band(bars, main.meter, triplet, rng, float(rng.uniform(0.4, 1.0)), swing)
        notes = notes + more
    positions = [i % main.meter + 1 for i in range(bars * main.meter)]
    return Score(notes, controls, positions, main.meter, bpm, f"Groove {main.path.stem}", LICENCE)
