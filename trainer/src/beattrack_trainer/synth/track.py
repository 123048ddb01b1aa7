"""One rendered track: its score, its sound, its labels and its row in ``metadata.csv``."""

from __future__ import annotations

import csv
import io
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import soundfile

from beattrack_trainer.data.annotations import NO_BEATS
from beattrack_trainer.synth.along import choose_window, grid_score
from beattrack_trainer.synth.arrange import (
    OWN_TIMING,
    fitted,
    rearrange,
    soundfont_licence,
    synth_options,
)
from beattrack_trainer.synth.effects import Audio, random_effects
from beattrack_trainer.synth.freedoom import freedoom_score
from beattrack_trainer.synth.groove import groove_score
from beattrack_trainer.synth.harmonix import Grid, read_grid
from beattrack_trainer.synth.heavy import heavy_score
from beattrack_trainer.synth.midi import (
    FLUIDSYNTH_LATENCY_S,
    SAMPLE_RATE,
    Floats,
    Score,
    SynthError,
    render_wav,
    write_midi,
)
from beattrack_trainer.synth.mma import mma_score
from beattrack_trainer.synth.nothing import LICENCE as NOTHING_LICENCE
from beattrack_trainer.synth.nothing import sound_without_beat
from beattrack_trainer.synth.ogg import write_ogg
from beattrack_trainer.synth.own import own_score
from beattrack_trainer.synth.pop909 import pop909_score
from beattrack_trainer.synth.work import SCRATCH, write_whole

SECONDS = (40.0, 75.0)  # length of a track, drawn between these
GRID_COLUMNS = ("genre", "time_signature", "annotated_bpm", "start")


@dataclass(frozen=True)
class Track:
    """A row of ``metadata.csv``; the last four columns are those of a set along real grids."""

    id: str
    kind: str
    seed: int
    bpm: float | None  # None, and a meter of 0, where there are no beats
    meter: int
    soundfont: str
    seconds: float
    source: str
    licence: str
    genre: str = ""
    time_signature: str = ""
    annotated_bpm: str = ""
    start: str = ""  # s; where in the annotated song the track begins


@dataclass(frozen=True)
class Job:
    """All that a worker needs to make one track; ``seconds`` is None for whole songs."""

    id: str
    kind: str
    seed: int
    out_dir: Path
    groove: Path | None
    pop909: Path | None
    soundfonts: tuple[Path, ...]
    seconds: tuple[float, float] | None = SECONDS
    harmonix: Path | None = None
    beats: Path | None = None  # the grid's file, of kind "harmonix"
    freedoom: Path | None = None


@dataclass(frozen=True, eq=False)
class Piece:
    """What is rendered: a score, where its beats sound (s), and what is written down of it."""

    score: Score
    times: Floats  # s; the score's beats for the renderer
    labels: Floats  # s; the beats as they are heard, and as they are written
    positions: Sequence[int]
    grid: Grid | None = None
    start: float = 0.0


def track_rng(seed: int, track_id: str) -> np.random.Generator:
    """The random generator of one track: the same for the same seed and id, on any machine."""
    return np.random.default_rng([seed, zlib.crc32(track_id.encode())])


def make_score(job: Job, seconds: float, folder: Path, rng: np.random.Generator) -> Score:
    """A score of the job's kind; raises ``SynthError`` where its source is missing or bad."""
    if job.kind == "mma":
        return mma_score(seconds, folder, rng)
    if job.kind == "groove" and job.groove is not None:
        return groove_score(seconds, job.groove, rng)
    if job.kind == "pop909" and job.pop909 is not None:
        return pop909_score(seconds, job.pop909, job.groove, rng)
    if job.kind == "freedoom" and job.freedoom is not None:
        return freedoom_score(seconds, job.freedoom, rng)
    if job.kind == "own":
        return own_score(seconds, rng)
    if job.kind == "heavy":
        return heavy_score(seconds, rng)
    raise SynthError(f"Track kind {job.kind} has no source.")


def random_piece(job: Job, folder: Path, rng: np.random.Generator) -> Piece:
    """A piece on a grid of its own."""
    seconds = float(rng.uniform(*(job.seconds or SECONDS)))
    score = rearrange(make_score(job, seconds, folder, rng), rng)
    times, positions = fitted(score, seconds, rng)
    return Piece(score, times, times + FLUIDSYNTH_LATENCY_S, positions)


def grid_piece(job: Job, folder: Path, rng: np.random.Generator) -> Piece:
    """A piece along the annotated grid of a song, played early by the renderer's latency."""
    if job.harmonix is None or job.beats is None:
        raise SynthError(f"Track kind {job.kind} has no source.")
    grid = read_grid(job.harmonix, job.beats)
    seconds = None if job.seconds is None else float(rng.uniform(*job.seconds))
    window = choose_window(grid, seconds, rng)
    if window.stop - window.first < 8:
        raise SynthError(f"The grid of {grid.id} has fewer than 8 beats in {seconds:.0f} s.")
    score, labels = grid_score(grid, window, job.groove, folder, rng)
    times = labels - FLUIDSYNTH_LATENCY_S
    return Piece(score, times, labels, score.positions, grid, window.start)


def beats_text(times: Floats, positions: Sequence[int], decimals: int = 5) -> str:
    """``time<TAB>position`` lines; times in seconds."""
    lines = [f"{t:.{decimals}f}\t{p}" for t, p in zip(times, positions, strict=True)]
    return "\n".join(lines) + "\n"


def make_track(job: Job) -> Track:
    """Make one track and return its row; the audio is renamed into place last.

    Raises ``SynthError`` with a sentence when it cannot be made.
    """
    rng = track_rng(job.seed, job.id)
    if job.kind == "nothing":
        return _make_nothing(job, rng)
    with tempfile.TemporaryDirectory(dir=job.out_dir / SCRATCH) as scratch:
        folder = Path(scratch)
        make = grid_piece if job.kind == "harmonix" else random_piece
        piece = make(job, folder, rng)
        score, times = piece.score, piece.times
        jitter = (
            0.0 if job.kind in OWN_TIMING else float(rng.choice([0, rng.uniform(0.002, 0.012)]))
        )
        write_midi(folder / "final.mid", score, times, rng, jitter)
        soundfont = job.soundfonts[int(rng.integers(len(job.soundfonts)))]
        gain, options = synth_options(rng)
        render_wav(folder / "final.mid", folder / "final.wav", soundfont, gain, options)
        stereo, _ = soundfile.read(folder / "final.wav", dtype="float32", always_2d=True)
    end = times[-1] + float(np.median(np.diff(times))) + float(rng.uniform(0.3, 1.5))
    audio = stereo.mean(axis=1)[: int(end * SAMPLE_RATE)]
    if len(audio) < times[-1] * SAMPLE_RATE or float(np.abs(audio).max()) < 1e-3:
        raise SynthError(f"The rendering of {score.source} is silent or too short.")
    audio = random_effects(audio, SAMPLE_RATE, rng)
    _write_labels(job, piece)
    _write_audio(job, audio)
    return _row(job, piece, soundfont, audio)


def _make_nothing(job: Job, rng: np.random.Generator) -> Track:
    """Make a track that has no beats, and says so in its annotation."""
    seconds = float(rng.uniform(*(job.seconds or SECONDS)))
    audio, source = sound_without_beat(seconds, SAMPLE_RATE, rng)
    audio = random_effects(audio, SAMPLE_RATE, rng)
    write_whole(job.out_dir / "beats" / f"{job.id}.beats", f"# {NO_BEATS}\n")
    _write_audio(job, audio)
    length = round(len(audio) / SAMPLE_RATE, 2)
    return Track(job.id, job.kind, job.seed, None, 0, "", length, source, NOTHING_LICENCE)


def _write_audio(job: Job, audio: Audio) -> None:
    temporary = job.out_dir / "tracks" / f"{job.id}.part"
    write_ogg(temporary, audio, SAMPLE_RATE, zlib.crc32(job.id.encode()))
    temporary.rename(job.out_dir / "tracks" / f"{job.id}.ogg")


def _write_labels(job: Job, piece: Piece) -> None:
    decimals = 5 if piece.grid is None else 9  # as many as the annotations have
    text = beats_text(piece.labels, piece.positions, decimals)
    write_whole(job.out_dir / "beats" / f"{job.id}.beats", text)
    if piece.grid is not None and piece.grid.sections:
        rows = [(max(0.0, t - piece.start), name) for t, name in piece.grid.sections]
        # a section that began before the track holds from its start
        held = [i for i, (t, _) in enumerate(rows) if t <= 0]
        rows = [r for r in rows[held[-1] if held else 0 :] if r[0] < piece.labels[-1]]
        lines = "".join(f"{t:.6f} {name}\n" for t, name in rows)
        write_whole(job.out_dir / "segments" / f"{job.id}.txt", lines)


def _row(job: Job, piece: Piece, soundfont: Path, audio: Audio) -> Track:
    bpm = 60.0 / float(np.median(np.diff(piece.times)))
    grid = piece.grid
    real: tuple[str, ...] = ()
    if grid is not None:
        real = (grid.genre, grid.time_signature, grid.bpm, f"{piece.start:.3f}")
    return Track(
        job.id,
        job.kind,
        job.seed,
        round(bpm, 2),
        piece.score.meter,
        soundfont.stem,
        round(len(audio) / SAMPLE_RATE, 2),
        piece.score.source,
        f"{piece.score.licence}; {soundfont_licence(soundfont)}",
        *real,
    )


def read_metadata(path: Path) -> dict[str, Track]:
    """Rows of a ``metadata.csv`` by id; none when the file is not there.

    Raises ``ValueError`` when a column is missing or not a number.
    """
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return {
            r["id"]: Track(
                r["id"],
                r["kind"],
                int(r["seed"]),
                float(r["bpm"]) if r["bpm"] else None,
                int(r["meter"]),
                r["soundfont"],
                float(r["seconds"]),
                r["source"],
                r["licence"],
                *(r.get(name) or "" for name in GRID_COLUMNS),
            )
            for r in rows
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a table of rendered tracks: {error}.") from error


def write_metadata(path: Path, tracks: Sequence[Track]) -> None:
    """Write the rows, sorted by id, by way of a temporary file."""
    real = any(t.kind == "harmonix" for t in tracks)
    names = [f.name for f in fields(Track) if real or f.name not in GRID_COLUMNS]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(t) for t in sorted(tracks, key=lambda t: t.id))
    write_whole(path, text.getvalue())
