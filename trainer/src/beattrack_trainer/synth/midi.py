"""Scores in beats: the form that every source of rendered music is brought to.

A source (MMA, Groove, POP909, Freedoom, generated patterns) gives notes whose times are counted in
labelled beats: beat 0 is the first label, 1.5 lies halfway between the second and the third. A
tempo curve then gives each beat its second. Labels and notes pass through the same curve, so labels
are exact by construction.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import mido
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRUM_CHANNEL = 9
TICKS_PER_SECOND = 1920  # 960 ticks a quarter at 120 bpm: half a millisecond is one tick
SAMPLE_RATE = 22050
PACKAGES = "fluidsynth mma timgm6mb-soundfont"  # Debian's; all that rendering needs

# Measured on rim shots, kicks, snares and hats at known times, four soundfonts, 22.05 kHz:
# the level passes a tenth of its peak 3 to 10 ms late, 5 to 8 ms in the mean. A note waits for the
# next block of 64 samples and the filters; the rest is the attack of the sample.
FLUIDSYNTH_LATENCY_S = 0.0045


class SynthError(RuntimeError):
    """A track that cannot be made, or a missing program; the message is one sentence."""


@dataclass(slots=True)
class Note:
    """One note: ``beat`` and ``length`` in labelled beats, pitch and velocity as in MIDI."""

    beat: float
    length: float
    pitch: int
    velocity: int
    channel: int


@dataclass(slots=True)
class Control:
    """A MIDI message that is not a note (program, controller, bend) and its time in beats."""

    beat: float
    message: mido.Message


@dataclass(slots=True)
class Score:
    """A piece in beats, with what the metadata needs to say about it."""

    notes: list[Note]
    controls: list[Control]
    positions: list[int]  # position in the bar of each labelled beat, from 1; 1 is the downbeat
    meter: int  # labelled beats in a bar
    bpm: float  # natural tempo of the labelled beat
    source: str
    licence: str
    beat_times: Floats | None = field(default=None)  # s; a fixed tempo curve, else one is drawn


def read_notes(path: Path, quarters_per_beat: float = 1.0) -> tuple[list[Note], list[Control]]:
    """Notes and controls of a MIDI file on its own grid of quarters, in beats.

    ``quarters_per_beat`` is 1.5 for a dotted-quarter beat. Tempo changes do not matter: ticks are
    counted, not seconds. Raises ``SynthError`` for a file that mido cannot read.
    """
    return notes_of(open_midi(path), quarters_per_beat)


def open_midi(path: Path) -> mido.MidiFile:
    """A MIDI file in memory; raises ``SynthError`` where mido cannot read it."""
    try:
        return mido.MidiFile(path)
    except (OSError, ValueError, EOFError, IndexError, mido.KeySignatureError) as error:
        raise SynthError(f"{path.name} is not a readable MIDI file: {error}.") from error


def notes_of(
    midi: mido.MidiFile, quarters_per_beat: float = 1.0
) -> tuple[list[Note], list[Control]]:
    """Notes and controls of a MIDI file in memory, in beats; see ``read_notes``."""
    per_beat = midi.ticks_per_beat * quarters_per_beat
    notes: list[Note] = []
    controls: list[Control] = []
    for track in midi.tracks:
        ticks = 0
        sounding: dict[tuple[int, int], list[Note]] = {}
        for message in track:
            ticks += message.time
            if message.is_meta or message.type == "sysex":
                continue
            beat = ticks / per_beat
            if message.type not in ("note_on", "note_off"):
                controls.append(Control(beat, message))
                continue
            open_notes = sounding.setdefault((message.channel, message.note), [])
            if message.type == "note_on" and message.velocity > 0:
                note = Note(beat, 0.0, message.note, message.velocity, message.channel)
                open_notes.append(note)
                notes.append(note)
            elif open_notes:
                started = open_notes.pop(0)
                started.length = beat - started.beat
    return notes, controls


def tempo_map_seconds(midi: mido.MidiFile, ticks: Sequence[int] | NDArray[np.int64]) -> Floats:
    """Seconds of absolute ``ticks`` under the tempo map of a MIDI file (0.5 s/quarter at first)."""
    change_ticks, tempi = [0], [500000]
    for track in midi.tracks[:1] if midi.type == 0 else midi.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "set_tempo":
                change_ticks.append(now)
                tempi.append(message.tempo)
    order = np.argsort(change_ticks, kind="stable")
    at = np.asarray(change_ticks, dtype=np.float64)[order]
    per_tick = np.asarray(tempi, dtype=np.float64)[order] / 1e6 / midi.ticks_per_beat
    starts = np.concatenate([[0.0], np.cumsum(np.diff(at) * per_tick[:-1])])
    wanted = np.asarray(ticks, dtype=np.float64)
    # side="right" - 1 takes the last change at or before each tick, the one in force
    index = np.searchsorted(at, wanted, side="right") - 1
    seconds: Floats = starts[index] + (wanted - at[index]) * per_tick[index]
    return seconds


def tempo_curve(n_beats: int, bpm: float, rng: np.random.Generator, rubato: bool = False) -> Floats:
    """Times of ``n_beats`` beats in seconds from 0, drawn from a family of human tempo courses.

    About half are steady, the rest drift, step, slow down or speed up; ``rubato`` (solo piano,
    strings) swings slowly about the tempo and slows at phrase ends.
    """
    course = np.zeros(n_beats)  # log of the tempo relative to bpm, for each beat interval
    x = np.arange(n_beats)
    if rubato:
        phrase = int(rng.choice([8, 12, 16]))
        depth = rng.uniform(0.03, 0.12)
        course += depth * np.sin(2 * np.pi * x / phrase + rng.uniform(0, 6.28))
        course -= rng.uniform(0.05, 0.25) * np.clip((x % phrase) - phrase + 3, 0, None) / 2
    else:
        kinds = ["steady", "drift", "step", "ramp", "ritardando"]
        kind = rng.choice(kinds, p=[0.5, 0.2, 0.1, 0.12, 0.08])
        if kind == "drift":
            walk = np.cumsum(rng.normal(0, 1, n_beats))
            course += rng.uniform(0.01, 0.04) * walk / (np.abs(walk).max() + 1e-9)
        elif kind == "step":
            at = int(rng.integers(n_beats // 4, 3 * n_beats // 4 + 1))
            course[at:] += rng.uniform(-0.25, 0.25)
        elif kind == "ramp":
            course += np.linspace(0, rng.uniform(-0.2, 0.2), n_beats)
        elif kind == "ritardando":
            course -= np.clip(x - n_beats + 8, 0, None) / 8 * rng.uniform(0.1, 0.4)
    # A live band is steady to a few milliseconds, a sequencer exactly.
    jitter = rng.choice([0.0, rng.uniform(0.002, 0.012)])
    periods = 60.0 / bpm * np.exp(-course)
    times: Floats = np.concatenate([[0.0], np.cumsum(periods)[:-1]])
    times += np.clip(rng.normal(0, 1, n_beats), -2, 2) * min(jitter, 0.02 * periods.min())
    return times


def seconds_of(beats: Floats | Sequence[float], times: Floats) -> Floats:
    """Seconds of fractional ``beats`` under ``times`` (seconds of whole beats), extended evenly."""
    position = np.asarray(beats, dtype=np.float64)
    inside = np.interp(position, np.arange(len(times)), times)
    before = times[0] + position * (times[1] - times[0])
    after = times[-1] + (position - (len(times) - 1)) * (times[-1] - times[-2])
    result: Floats = np.where(
        position < 0, before, np.where(position > len(times) - 1, after, inside)
    )
    return result


def write_midi(
    path: Path, score: Score, times: Floats, rng: np.random.Generator, jitter_s: float
) -> None:
    """Write ``score`` at ``times`` (seconds of its beats) as a one-track MIDI file.

    Each channel keeps a small constant lag of its own and each note a random one, in proportion to
    ``jitter_s``: players differ from the beat, the labels do not.
    """
    lag = {c: float(rng.normal(0, jitter_s / 2)) for c in range(16)}
    end = float(times[-1] + (times[-1] - times[-2]))
    events: list[tuple[float, int, mido.Message]] = []
    for control in score.controls:
        second = float(seconds_of([control.beat], times)[0])
        if second < end:
            events.append((max(0.0, second), 0, control.message))
    starts = seconds_of([n.beat for n in score.notes], times)
    stops = seconds_of([n.beat + n.length for n in score.notes], times)
    for note, start, stop in zip(score.notes, starts, stops, strict=True):
        if start >= end - 0.02:
            continue
        start = max(0.0, start + lag[note.channel] + float(np.clip(rng.normal(), -2, 2)) * jitter_s)
        stop = min(max(stop, start + 0.04), end)
        on = mido.Message("note_on", note=note.pitch, velocity=note.velocity, channel=note.channel)
        events.append((start, 2, on))
        # offs before ons at one instant, or a repeated note would be cut at its start
        events.append((stop, 1, mido.Message("note_off", note=note.pitch, channel=note.channel)))
    _save(path, events)


def _save(path: Path, events: Iterable[tuple[float, int, mido.Message]]) -> None:
    midi = mido.MidiFile(type=0, ticks_per_beat=960)
    track = mido.MidiTrack()
    midi.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=500000, time=0))
    last = 0
    for second, _, message in sorted(events, key=lambda e: (e[0], e[1])):
        tick = round(second * TICKS_PER_SECOND)
        track.append(message.copy(time=max(0, tick - last)))
        last = max(last, tick)
    midi.save(path)


def shifted(notes: Iterable[Note], beats: float) -> list[Note]:
    """Copies of ``notes`` moved by ``beats``."""
    return [replace(n, beat=n.beat + beats) for n in notes]


def find_program(name: str, packages: str = PACKAGES) -> str:
    """Path of an installed program; raises ``SynthError`` that names the packages to install."""
    path = shutil.which(name)
    if path is None:
        raise SynthError(f"The program {name} is missing (Debian: apt install {packages}).")
    return path


def render_wav(
    midi: Path,
    wav: Path,
    soundfont: Path,
    gain: float,
    options: Sequence[str] = (),
    sample_rate: int = SAMPLE_RATE,
) -> None:
    """Render a MIDI file to a stereo 16-bit WAV file with FluidSynth; raises ``SynthError``."""
    command = [find_program("fluidsynth"), "-ni", "-q", "-F", str(wav), "-T", "wav"]
    command += ["-r", str(sample_rate), "-g", f"{gain:.3f}", "-o", "synth.cpu-cores=1"]
    # Only the presets in use are loaded: a 150 MB soundfont then starts in a fraction of a second.
    command += ["-o", "synth.dynamic-sample-loading=1", *options, str(soundfont), str(midi)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0 or not wav.exists():
        tail = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise SynthError(f"FluidSynth failed on {midi.name}: {tail[0]}.")
