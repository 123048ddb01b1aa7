"""Music of the game Freedoom on the grid of its MIDI files, where that grid can be trusted.

The files have signatures and a tempo map, which many a writer left at their defaults. A song is
used over its longest stretch of bars that passes the checks of ``trust``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import mido
import numpy as np

from beattrack_trainer.synth.midi import (
    Control,
    Floats,
    Note,
    Score,
    SynthError,
    notes_of,
    open_midi,
    tempo_map_seconds,
)
from beattrack_trainer.synth.trust import (
    FASTEST,
    SLOWEST,
    Untrusted,
    accents,
    check_alignment,
    check_bars,
    check_level,
    rival,
)

LICENCE = "Freedoom BSD-3-Clause"
SHORTEST_S = 40.0  # of a stretch; the shortest random track
FEWEST_NOTES = 50
MARKED_SHARE = 0.75  # of the beats of an excerpt must have a note near
EARLY = 0.05  # beats; a note this little before a beat belongs to it
REGISTERED = (6, 38, 98, 99, 100, 101)  # controllers that mean something in their order alone


@dataclass(frozen=True, eq=False)
class Stretch:
    """Bars that follow each other with one kind of beat: where, how long a beat, what is counted.

    ``start`` and ``beat`` are in ticks; ``positions`` holds the beat in bar of each beat, from 1.
    """

    start: float
    beat: float
    positions: tuple[int, ...]
    compound: bool

    @property
    def stop(self) -> float:
        """The tick at which the last beat ends."""
        return self.start + len(self.positions) * self.beat


@dataclass(frozen=True, eq=False)
class Song:
    """A stretch of a song that can be used; notes and controls are in its beats."""

    name: str
    notes: tuple[Note, ...]
    controls: tuple[Control, ...]  # in order; those before the stretch have negative beats
    positions: tuple[int, ...]
    times: Floats  # s; of each beat, from the song's start
    rows: Floats  # what marks the bars, see ``trust.accents``


@dataclass(frozen=True)
class Survey:
    """Names of the songs that are used, and how many are left out for which reason."""

    used: tuple[str, ...]
    left_out: Counter[str]

    def sentence(self) -> str:
        """The counts in a sentence."""
        said = f"Freedoom: {len(self.used)} of {len(self.used) + self.left_out.total()} songs"
        reasons = ", ".join(f"{reason} {n}" for reason, n in self.left_out.most_common())
        return f"{said}; left out: {reasons}." if reasons else f"{said}."


@lru_cache(maxsize=2)
def songs(folder: Path) -> tuple[Path, ...]:
    """The files of the songs; raises ``SynthError`` when there is none."""
    found = tuple(sorted(folder.rglob("d_*.mid")))
    if not found:
        raise SynthError(f"{folder} holds no music of Freedoom (no d_*.mid).")
    return found


def survey(folder: Path) -> Survey:
    """Read and check every song; raises ``SynthError`` when none can be used."""
    used, left_out = [], Counter[str]()
    for path in songs(folder):
        try:
            used.append(read_song(path).name)
        except Untrusted as error:
            left_out[error.reason] += 1
        except SynthError:
            left_out["not readable"] += 1
    found = Survey(tuple(used), left_out)
    if not used:
        raise SynthError(f"No song in {folder} can be used. {found.sentence()}")
    return found


def labelled_beats(numerator: int, denominator: int) -> tuple[float, int] | None:
    """Length of a labelled beat in quarters and beats in a bar; None where quarters do not fit.

    6/8, 9/8 and 12/8 are counted in dotted quarters, as the grooves and patterns are.
    """
    if denominator == 8 and numerator in (6, 9, 12):
        return 1.5, numerator // 3
    quarters = 4 * numerator / denominator
    return (1.0, int(quarters)) if quarters in range(1, 13) else None


def stretches(midi: mido.MidiFile) -> list[Stretch]:
    """The stretches of a file under its signatures (4/4 at first), the longest first."""
    at, end = {0: (4, 4)}, 0
    for track in midi.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "time_signature":
                at[now] = (message.numerator, message.denominator)
            elif message.type == "note_on":
                end = max(end, now)
    starts = sorted(tick for tick in at if tick <= end)
    found: list[Stretch] = []
    for start, stop in zip(starts, [*starts[1:], end + 1], strict=True):
        counted = labelled_beats(*at[start])
        if counted is None:
            continue
        beat = counted[0] * midi.ticks_per_beat
        count = int(np.ceil((stop - start) / beat - EARLY))
        positions = tuple(i % counted[1] + 1 for i in range(count))
        new = Stretch(start, beat, positions, counted[0] != 1)
        if found and found[-1].beat == beat and abs(found[-1].stop - start) < EARLY * beat:
            last = found.pop()
            new = replace(new, start=last.start, positions=last.positions + positions)
        found.append(new)
    return sorted(found, key=lambda s: s.start - s.stop)


def common_meter(positions: Sequence[int]) -> int:
    """Beats in the commonest whole bar, or in all where there is but one."""
    ends = [p for p, q in pairwise(positions) if q == 1]
    return Counter(ends or positions[-1:]).most_common(1)[0][0]


@lru_cache(maxsize=16)
def read_song(path: Path) -> Song:
    """The longest stretch of quarters, or of dotted quarters, that passes the checks.

    Where the longest of one kind fails, the shorter ones are not trusted either. Raises
    ``Untrusted`` with the reason of the longest of all where none is left, and ``SynthError`` for a
    file that cannot be read.
    """
    midi = open_midi(path)
    if midi.type == 2 or midi.ticks_per_beat < 1:
        raise SynthError(f"{path.name} has no common grid of quarters.")
    failure: Untrusted | None = None
    longest = {s.compound: s for s in reversed(stretches(midi))}
    for stretch in sorted(longest.values(), key=lambda s: s.start - s.stop):
        try:
            return _checked(path.stem, midi, stretch)
        except Untrusted as error:
            failure = failure or error
    raise failure or Untrusted(f"{path.name} has no bars of whole beats.", "odd signatures")


def _checked(name: str, midi: mido.MidiFile, stretch: Stretch) -> Song:
    """A stretch as a song; raises ``Untrusted``."""
    count = len(stretch.positions)
    ticks = np.rint(stretch.start + stretch.beat * np.arange(count + 1)).astype(np.int64)
    times = tempo_map_seconds(midi, ticks)
    notes, controls = notes_of(midi, stretch.beat / midi.ticks_per_beat)
    first = stretch.start / stretch.beat
    notes = [replace(n, beat=n.beat - first) for n in notes]
    notes = [n for n in notes if -EARLY <= n.beat < count - EARLY]
    if times[-1] - times[0] < SHORTEST_S or len(notes) < FEWEST_NOTES:
        raise Untrusted(f"{name} lasts {times[-1] - times[0]:.0f} s in its meter.", "too short")
    meter = common_meter(stretch.positions)
    check_alignment(notes, stretch.compound, name)
    check_level(notes, np.diff(times), meter, stretch.compound, name)
    rows = accents(notes, count, 3 if stretch.compound else 2)
    check_bars(rows, stretch.positions, name)
    moved = sorted((replace(c, beat=c.beat - first) for c in controls), key=lambda c: c.beat)
    return Song(name, tuple(notes), tuple(moved), stretch.positions, times[:-1], rows)


def freedoom_score(seconds: float, folder: Path, rng: np.random.Generator) -> Score:
    """An excerpt of about ``seconds`` of a random song that passes the checks.

    Raises ``SynthError`` where forty songs drawn do not.
    """
    found = songs(folder)
    for _ in range(40):
        path = found[int(rng.integers(len(found)))]
        try:
            song = read_song(path)
        except SynthError:
            continue
        factor = 1.0 if rng.random() < 0.3 else float(np.exp(rng.normal(0, 0.15)))
        # a song at the edge of what is tapped does not leave it, at its slowest nor at its fastest
        bpms = 60 / np.diff(song.times)
        least, most = min(1.0, SLOWEST / bpms.min()), max(1.0, FASTEST / bpms.max())
        factor, bpm = float(np.clip(factor, least, most)), float(np.median(bpms))
        starts = excerpt_starts(song, int(seconds * factor * bpm / 60))
        if len(starts):
            first = starts[int(rng.integers(len(starts)))]
            return _excerpt(song, first, int(seconds * factor * bpm / 60), factor)
    raise SynthError(f"No song of 40 tried in {folder} can be used.")


def excerpt_starts(song: Song, want: int) -> list[int]:
    """Downbeats where an excerpt of ``want`` beats (or the song) can begin.

    Most of its beats have a note near, and no other place of its bars is stronger than the first.
    """
    count = len(song.positions)
    near = [round(n.beat) for n in song.notes if abs(n.beat - round(n.beat)) < 2 * EARLY]
    marked = np.zeros(count)
    marked[[b for b in near if 0 <= b < count]] = 1.0
    downbeats = [i for i, p in enumerate(song.positions) if p == 1]
    fitting = [i for i in downbeats if i + want <= count] or downbeats[:1]
    return [
        i
        for i in fitting
        if marked[i : i + want].mean() >= MARKED_SHARE
        and rival(song.rows[:, i : i + want], song.positions[i : i + want]) <= 1.0
    ]


def _excerpt(song: Song, first: int, want: int, factor: float) -> Score:
    """``want`` beats of a song from the downbeat ``first``, ``factor`` times as fast.

    A tempo that the song changes is kept with its changes; where it is steady, a course is drawn
    as for all other music, unless the song is to keep its tempo.
    """
    positions = list(song.positions[first : first + want])
    times = (song.times[first : first + want] - song.times[first]) / factor
    periods = np.diff(times)
    kept = factor == 1.0 or float(np.ptp(periods)) > 0.01 * float(np.median(periods))
    notes = [
        replace(n, beat=n.beat - first)
        for n in song.notes
        if first - EARLY <= n.beat < first + want
    ]
    return Score(
        notes,
        _controls_from(song.controls, first),
        positions,
        common_meter(positions),
        60 / float(np.median(periods)),
        f"Freedoom {song.name}",
        LICENCE,
        times if kept else None,
    )


def _controls_from(controls: tuple[Control, ...], first: int) -> list[Control]:
    """Controls from a beat on, in beats from there; what was in force before is sent at once."""
    in_force: dict[tuple[str, int, int], Control] = {}
    before, after = [], []
    for control in controls:
        message = control.message
        number = int(getattr(message, "control", -1))
        if control.beat > first:
            after.append(replace(control, beat=control.beat - first))
        elif number in REGISTERED:
            before.append(replace(control, beat=0.0))
        elif hasattr(message, "channel"):
            key = message.type, message.channel, number
            in_force.pop(key, None)  # what is set again comes later: a bank before its program
            in_force[key] = replace(control, beat=0.0)
    return [*before, *in_force.values(), *after]
