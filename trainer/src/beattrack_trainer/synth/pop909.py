"""Songs of POP909 on their annotated beats, with other instruments and, at times, drums."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import mido
import numpy as np

from beattrack_trainer.synth.band import BASSES, KEYS, LEADS, pick, program
from beattrack_trainer.synth.drums import PATTERNS, drum_part
from beattrack_trainer.synth.groove import drum_track
from beattrack_trainer.synth.midi import Control, Floats, Note, Score, SynthError, tempo_map_seconds

LICENCE = "POP909 MIT"
ALIGNED_SHARE = 0.5  # of notes within a tenth of a beat of a half-beat; half would be 0.4 by chance
ALIGNED_OFFSET = 0.06  # beats; the median distance of notes near a beat from it


@lru_cache(maxsize=2)
def songs(folder: Path) -> tuple[Path, ...]:
    """Folders of the songs; raises ``SynthError`` when there is none."""
    found = tuple(sorted(p.parent for p in folder.rglob("beat_midi.txt")))
    if not found:
        raise SynthError(f"{folder} holds no songs of POP909 (no beat_midi.txt).")
    return found


def read_beats(song: Path) -> tuple[Floats, list[int]]:
    """Beat times (s) in the MIDI file and positions in 4/4; raises ``SynthError`` if irregular.

    The third column of ``beat_midi.txt`` marks bar starts; only songs whose bars all have four
    beats and agree are taken, since a wrong downbeat teaches worse than none.
    """
    table = np.loadtxt(song / "beat_midi.txt", ndmin=2)
    times, starts = table[:, 0], np.flatnonzero(table[:, 2] > 0.5)
    if len(starts) < 4 or np.any(np.diff(starts) != 4):
        raise SynthError(f"POP909 {song.name} has bars that are not four beats.")
    periods = np.diff(times)
    if periods.min() < 0.6 * np.median(periods) or periods.max() > 1.6 * np.median(periods):
        raise SynthError(f"POP909 {song.name} has missing or doubled beats.")
    positions = [int((i - starts[0]) % 4) + 1 for i in range(len(times))]
    return times, positions


def read_tracks(song: Path, times: Floats) -> dict[str, list[Note]]:
    """Notes of each named track (MELODY, BRIDGE, PIANO) in labelled beats."""
    midi = mido.MidiFile(song / f"{song.name}.mid")
    index = np.arange(len(times), dtype=np.float64)
    tracks: dict[str, list[Note]] = {}
    for track in midi.tracks:
        ticks, rows = 0, []
        open_notes: dict[int, tuple[int, int]] = {}
        for message in track:
            ticks += message.time
            if message.type == "note_on" and message.velocity > 0:
                open_notes[message.note] = (ticks, message.velocity)
            elif message.type in ("note_on", "note_off") and message.note in open_notes:
                start, velocity = open_notes.pop(message.note)
                rows.append((start, ticks, message.note, velocity))
        if not rows:
            continue
        starts = tempo_map_seconds(midi, [r[0] for r in rows])
        stops = tempo_map_seconds(midi, [r[1] for r in rows])
        on, off = np.interp(starts, times, index), np.interp(stops, times, index)
        tracks[track.name.strip().upper()] = [
            Note(float(a), float(b - a), r[2], r[3], 0)
            for a, b, r, s in zip(on, off, rows, starts, strict=True)
            if times[0] - 0.05 <= s < times[-1]
        ]
    return tracks


def check_alignment(notes: list[Note], name: str) -> None:
    """Raise ``SynthError`` unless the notes sit on the beats: near half-beats, and unbiased."""
    beats = np.array([n.beat for n in notes])
    if len(beats) < 50:
        raise SynthError(f"POP909 {name} has too few notes.")
    to_half = beats - np.round(beats * 2) / 2
    to_beat = beats - np.round(beats)
    near = to_beat[np.abs(to_beat) < 0.2]
    share = float(np.mean(np.abs(to_half) < 0.1))
    # notes on the quarter between half-beats are common; on the beat there must be more
    on_beat = float(np.mean(np.abs(to_beat) < 0.1))
    off_beat = float(np.mean(np.abs(np.abs(to_beat) - 0.25) < 0.1)) / 2
    offset = abs(float(np.median(near))) if len(near) else 1.0
    if share < ALIGNED_SHARE or offset > ALIGNED_OFFSET or on_beat < off_beat:
        raise SynthError(
            f"POP909 {name} is off its beats (share {share:.2f}, offset {offset:.2f})."
        )


def pop909_score(
    seconds: float, folder: Path, groove: Path | None, rng: np.random.Generator
) -> Score:
    """An excerpt of about ``seconds`` of a random song that passes the checks."""
    found = songs(folder)
    for _ in range(40):
        song = found[int(rng.integers(len(found)))]
        try:
            times, positions = read_beats(song)
            tracks = read_tracks(song, times)
            check_alignment([n for t in tracks.values() for n in t], song.name)
        except SynthError:
            continue
        return _arranged(song.name, times, positions, tracks, seconds, groove, rng)
    raise SynthError(f"No song of 40 tried in {folder} has notes on its beats.")


def _arranged(
    name: str,
    times: Floats,
    positions: list[int],
    tracks: dict[str, list[Note]],
    seconds: float,
    groove: Path | None,
    rng: np.random.Generator,
) -> Score:
    bpm = 60.0 / float(np.median(np.diff(times)))
    want = int(seconds * bpm / 60)
    first_down = positions.index(1)
    bars_in = max(0, (len(times) - first_down - want) // 4)
    first = first_down + 4 * int(rng.integers(0, bars_in + 1))
    positions = positions[first : first + want]
    notes: list[Note] = []
    controls: list[Control] = []
    piano_only = rng.random() < 0.3
    for channel, (track, pool) in enumerate((("MELODY", LEADS), ("BRIDGE", KEYS), ("PIANO", KEYS))):
        number = 0 if piano_only else pick(pool, rng)
        if track == "MELODY" and piano_only and rng.random() < 0.5:
            continue
        controls += program(channel, number, int(rng.integers(75, 120)))
        notes += [
            replace(n, beat=n.beat - first, channel=channel)
            for n in tracks.get(track, [])
            if first - 0.2 <= n.beat < first + want
        ]
    bars = want // 4 + 1
    if not piano_only and rng.random() < 0.5:  # the lowest notes of the piano doubled by a bass
        low = [n for n in notes if n.channel == 2 and n.pitch < 52]
        notes += [replace(n, channel=3, pitch=28 + (n.pitch - 28) % 12 + 0) for n in low]
        controls += program(3, pick(BASSES, rng), 115)
    if not piano_only and rng.random() < 0.65:
        if groove is not None and rng.random() < 0.5:
            notes += [n for n in drum_track(groove, bars, rng, 4)[0] if n.beat < want]
        else:
            fitting = [p for p in PATTERNS if p.meter == 4 and p.bpm[0] <= bpm <= p.bpm[1]]
            pattern = fitting[int(rng.integers(len(fitting)))]
            notes += drum_part(pattern, bars, rng)
    own_tempo = rng.random() < 0.3
    excerpt = times[first : first + want] - times[first]
    if not own_tempo:
        bpm = float(np.clip(bpm * np.exp(rng.normal(0, 0.15)), 50, 200))
    return Score(
        notes,
        controls,
        positions,
        4,
        bpm,
        f"POP909 {name}",
        LICENCE,
        excerpt if own_tempo else None,
    )
