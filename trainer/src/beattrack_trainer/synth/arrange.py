"""What is done to every score: other instruments, levels, breaks, tempo, soundfont settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np

from beattrack_trainer.synth.midi import (
    DRUM_CHANNEL,
    PACKAGES,
    Control,
    Floats,
    Note,
    Score,
    SynthError,
    tempo_curve,
)

FOLDERS = (Path("/usr/share/sounds/sf2"), Path("/usr/share/sounds/sf3"))
LICENCES = {
    "FluidR3_GM": "FluidR3 MIT",
    "FluidR3Mono_GM": "FluidR3Mono MIT",
    "MuseScore_General_Lite": "MuseScore General MIT",
    "TimGM6mb": "TimGM6mb GPL-2.0",
}
KITS = (0, 0, 0, 8, 16, 24, 25, 32, 40)  # standard, room, power, electronic, analog, jazz, brush
# Recorded players have their own timing; more would smear it.
OWN_TIMING = ("groove", "mma")


def check_soundfonts(given: Sequence[Path] | None) -> tuple[Path, ...]:
    """The soundfonts given, or all that are installed (links resolved, each once).

    Raises ``SynthError`` when there is none or one does not exist.
    """
    if given is not None:
        missing = [p for p in given if not p.is_file()]
        if missing or not given:
            raise SynthError(
                f"The soundfont {missing[0] if missing else '(none given)'} is no file."
            )
        return tuple(given)
    found = {
        p.resolve() for f in FOLDERS for pattern in ("*.sf2", "*.sf3") for p in f.glob(pattern)
    }
    if not found:
        raise SynthError(f"No soundfont in {FOLDERS[0].parent} (Debian: apt install {PACKAGES}).")
    return tuple(sorted(found, key=lambda p: p.name))


def soundfont_licence(path: Path) -> str:
    """Name and licence of a known soundfont, or its name and "licence not known"."""
    return LICENCES.get(path.stem, f"{path.stem}, licence not known")


def rearrange(score: Score, rng: np.random.Generator) -> Score:
    """Random instruments of the same families, levels, transposition and drum changes."""
    return dressed(replace(score, notes=_drum_mode(score, rng)), rng)


def dressed(score: Score, rng: np.random.Generator) -> Score:
    """As ``rearrange``, with the drums as they are."""
    notes = _levels(score.notes, rng)
    semitones = int(rng.integers(-5, 7))
    notes = [
        n
        if n.channel == DRUM_CHANNEL
        else replace(n, pitch=int(np.clip(n.pitch + semitones, 12, 115)))
        for n in notes
    ]
    return replace(score, notes=notes, controls=_instruments(score.controls, rng))


def _instruments(controls: list[Control], rng: np.random.Generator) -> list[Control]:
    """Replace programs inside their family of eight, one choice for each (channel, program)."""
    chosen: dict[tuple[int, int], int] = {}
    swap = rng.random() < 0.75
    kit = int(rng.choice(KITS))
    result = [Control(0.0, mido.Message("program_change", channel=DRUM_CHANNEL, program=kit))]
    for control in controls:
        message = control.message
        if message.type == "program_change" and message.channel == DRUM_CHANNEL:
            continue
        if message.type == "program_change" and swap:
            key = (message.channel, message.program)
            family = message.program // 8 * 8
            # families 12 and up hold sound effects and worldly percussion: kept as they are
            new = family + int(rng.integers(8)) if family < 88 else message.program
            keep = rng.random() < 0.4
            program = chosen.setdefault(key, message.program if keep else new)
            result.append(Control(control.beat, message.copy(program=program)))
        else:
            result.append(control)
    return result


def _levels(notes: list[Note], rng: np.random.Generator) -> list[Note]:
    """Scale the velocities of each channel at random; drums vary most."""
    scale = {c: float(np.exp(rng.normal(0, 0.22))) for c in range(16)}
    scale[DRUM_CHANNEL] = float(rng.uniform(0.4, 1.25))
    return [replace(n, velocity=int(np.clip(n.velocity * scale[n.channel], 8, 127))) for n in notes]


def _drum_mode(score: Score, rng: np.random.Generator) -> list[Note]:
    """Leave out the drums, all but the drums, or the drums of a few sections, or nothing."""
    drums = [n for n in score.notes if n.channel == DRUM_CHANNEL]
    others = [n for n in score.notes if n.channel != DRUM_CHANNEL]
    enough = len(others) > len(score.positions) / 2
    mode = rng.choice(
        ["all", "none", "only", "breaks", "late", "solo"], p=[0.58, 0.12, 0.06, 0.14, 0.06, 0.04]
    )
    if not drums or not enough:
        return score.notes
    bars = len(score.positions) // score.meter
    if mode == "none":
        return others
    if mode == "only" and len(drums) > len(score.positions):
        return drums
    if mode == "solo":  # the band stops for some bars, the drums go on
        muted = set(_bars(bars, rng))
        return drums + [n for n in others if int(n.beat // score.meter) not in muted]
    if mode == "breaks":
        muted = set(_bars(bars, rng)) | set(_bars(bars, rng))
        return others + [n for n in drums if int(n.beat // score.meter) not in muted]
    if mode == "late":
        start = score.meter * int(rng.integers(2, 9))
        return others + [n for n in drums if n.beat >= start - 0.2]
    return score.notes


def _bars(bars: int, rng: np.random.Generator) -> range:
    length = int(rng.choice([1, 2, 4]))
    first = int(rng.integers(0, max(1, bars - length)))
    return range(first, first + length)


def fitted(score: Score, seconds: float, rng: np.random.Generator) -> tuple[Floats, list[int]]:
    """Times (s) and positions of the labelled beats that fit into ``seconds``, after a short wait.

    Whole bars where the tempo is drawn here; notes past the last beat are left to the writer.
    """
    wait = float(rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.2, 2.0)]))
    times = score.beat_times
    if times is None:
        times = tempo_curve(len(score.positions), score.bpm, rng)
    times = times - times[0] + wait
    last = max((n.beat for n in score.notes), default=0.0)
    count = int(min(np.searchsorted(times, seconds), np.floor(last) + 1, len(score.positions)))
    count -= count % score.meter
    if count < 2 * score.meter:
        raise SynthError(f"{score.source} gives only {count} beats.")
    return times[:count], list(score.positions[:count])


def synth_options(rng: np.random.Generator) -> tuple[float, list[str]]:
    """A gain and command line options of FluidSynth: reverb, chorus, tuning at random."""
    options: list[str] = []
    if rng.random() < 0.5:
        options += [
            "-o",
            f"synth.reverb.room-size={rng.uniform(0.1, 0.8):.2f}",
            "-o",
            f"synth.reverb.level={rng.uniform(0.1, 0.9):.2f}",
            "-o",
            f"synth.reverb.damp={rng.uniform(0, 0.9):.2f}",
            "-R",
            "1",
        ]
    else:
        options += ["-R", "0"]
    options += ["-C", "1" if rng.random() < 0.4 else "0"]
    return float(rng.uniform(0.25, 0.5)), options
