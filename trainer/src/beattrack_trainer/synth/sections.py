"""Sections of a song as a listener hears them: who plays, how loud, where a crash falls."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from beattrack_trainer.synth.drums import CRASH
from beattrack_trainer.synth.midi import DRUM_CHANNEL, Control, Floats, Note

LAYERS = ("drums", "bass", "others")
LAYER_EARLY = 0.08  # beats; as where notes are given to beats

# A word in a label: chances that the drums, the bass and the others are left out, and the level.
ROLES: tuple[tuple[str, tuple[float, float, float], float], ...] = (
    ("silence", (0.9, 0.6, 0.0), 0.7),
    ("fade", (0.4, 0.3, 0.0), 0.7),
    ("prechorus", (0.15, 0.05, 0.05), 0.95),
    ("chorus", (0.02, 0.0, 0.0), 1.08),
    ("refrain", (0.02, 0.0, 0.0), 1.08),
    ("intro", (0.45, 0.4, 0.1), 0.85),
    ("outro", (0.3, 0.2, 0.05), 0.85),
    ("break", (0.7, 0.4, 0.1), 0.85),
    ("quiet", (0.8, 0.4, 0.0), 0.7),
    ("bridge", (0.4, 0.2, 0.05), 0.9),
    ("build", (0.3, 0.3, 0.1), 0.95),
    ("drum", (0.0, 0.7, 0.8), 1.0),
    ("gtr", (0.4, 0.4, 0.0), 0.95),
)
USUAL: tuple[tuple[float, float, float], float] = ((0.06, 0.05, 0.05), 1.0)
STRONG = ("chorus", "refrain", "solo", "inst")


@dataclass(frozen=True)
class Role:
    """What one kind of section does to the music."""

    silent: frozenset[str]
    level: float
    crash: bool


def draw_role(label: str, rng: np.random.Generator) -> Role:
    """A role for a label such as "verse" or "break"; at least one layer goes on."""
    chances, level = next((r[1:] for r in ROLES if r[0] in label), USUAL)
    silent = {name for name, p in zip(LAYERS, chances, strict=True) if rng.random() < p}
    if len(silent) == len(LAYERS):
        silent.discard("others")
    crash = any(word in label for word in STRONG) and "pre" not in label
    return Role(frozenset(silent), level * float(np.exp(rng.normal(0, 0.05))), crash)


def section_starts(
    sections: list[tuple[float, str]], times: Floats, bar: NDArray[np.int64]
) -> list[tuple[int, str]]:
    """(first beat, label) of each section that holds beats, moved to the nearest bar.

    The first entry is at beat 0. Labels lose their numbers: "verse2" is a verse.
    """
    downs = np.concatenate([[0], np.flatnonzero(np.diff(bar)) + 1])
    found: dict[int, str] = {0: ""}
    for start, label in sections:
        name = re.sub(r"[\d_]+$", "", label)
        at = int(downs[np.argmin(np.abs(times[downs] - start))]) if start > times[0] else 0
        if start < times[-1]:
            found[at] = name
    return sorted(found.items())


def invented(bar: NDArray[np.int64], rng: np.random.Generator) -> list[tuple[int, str]]:
    """Sections of 8 or 16 bars for a song without annotated ones."""
    downs = np.concatenate([[0], np.flatnonzero(np.diff(bar)) + 1])
    names = ("intro", "verse", "chorus", "verse", "bridge", "chorus", "break", "chorus")
    step = int(rng.choice([8, 16]))
    return [(int(k), names[i % len(names)]) for i, k in enumerate(downs[::step])]


def layer_of(note: Note, bass_channels: set[int]) -> str:
    """The layer that a note belongs to."""
    if note.channel == DRUM_CHANNEL:
        return "drums"
    return "bass" if note.channel in bass_channels else "others"


def arranged(
    notes: list[Note],
    controls: list[Control],
    sections: list[tuple[float, str]],
    times: Floats,
    bar: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[Note]:
    """The notes that sound, section by section; ``sections`` are (start in s, label).

    One song in ten has no drums at all, one in twenty-five nothing else. A section whose beats
    would mostly pass unmarked keeps all its layers.
    """
    basses = {
        c.message.channel
        for c in controls
        if c.message.type == "program_change" and 32 <= c.message.program < 40
    }
    mode = rng.choice(["sections", "none", "only"], p=[0.86, 0.1, 0.04])
    plan = section_starts(sections, times, bar) if sections else invented(bar, rng)
    bounds = [k for k, _ in plan] + [len(times) + 64]
    roles = {label: draw_role(label, rng) for label in sorted({name for _, name in plan})}
    parts: list[list[Note]] = [[] for _ in plan]
    for note in notes:
        number = int(np.searchsorted(bounds, note.beat + LAYER_EARLY, side="right")) - 1
        parts[min(max(number, 0), len(plan) - 1)].append(note)
    result: list[Note] = []
    for (first, label), stop, part in zip(plan, bounds[1:], parts, strict=True):
        role = roles[label]
        silent = {"sections": role.silent, "none": {"drums"}, "only": {"bass", "others"}}[str(mode)]
        kept = [n for n in part if layer_of(n, basses) not in silent]
        if _marked_share(kept, first, min(stop, len(times))) < 0.5:
            kept = part
        result += [_scaled(n, role.level) for n in kept]
        has_drums = any(n.channel == DRUM_CHANNEL for n in kept)
        if role.crash and has_drums and first and rng.random() < 0.7:
            result.append(Note(float(first), 0.5, CRASH, 108, DRUM_CHANNEL))
    return result


def _marked_share(notes: list[Note], first: int, stop: int) -> float:
    """Share of the beats from ``first`` up to ``stop`` on which a note begins."""
    near = {round(n.beat) for n in notes if abs(n.beat - round(n.beat)) < 0.1}
    return len(near & set(range(first, stop))) / max(1, stop - first)


def _scaled(note: Note, level: float) -> Note:
    return replace(note, velocity=int(np.clip(note.velocity * level, 8, 127)))
