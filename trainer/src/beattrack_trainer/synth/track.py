"""One rendered track: its score, its sound, its labels and its row in ``metadata.csv``."""

from __future__ import annotations

import csv
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import soundfile

from beattrack_trainer.synth.arrange import (
    OWN_TIMING,
    fitted,
    rearrange,
    soundfont_licence,
    synth_options,
)
from beattrack_trainer.synth.effects import Audio, random_effects
from beattrack_trainer.synth.groove import groove_score
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
from beattrack_trainer.synth.own import own_score
from beattrack_trainer.synth.pop909 import pop909_score

SECONDS = (40.0, 75.0)  # length of a track


@dataclass(frozen=True)
class Track:
    """A row of ``metadata.csv``."""

    id: str
    kind: str
    seed: int
    bpm: float
    meter: int
    soundfont: str
    seconds: float
    source: str
    licence: str


@dataclass(frozen=True)
class Job:
    """All that a worker needs to make one track."""

    id: str
    kind: str
    seed: int
    out_dir: Path
    groove: Path | None
    pop909: Path | None
    soundfonts: tuple[Path, ...]


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
    if job.kind == "own":
        return own_score(seconds, rng)
    raise SynthError(f"Track kind {job.kind} has no source.")


def write_beats(path: Path, times: Floats, positions: Sequence[int]) -> None:
    """Write ``time<TAB>position`` lines; times in seconds with five decimals."""
    lines = [f"{t:.5f}\t{p}" for t, p in zip(times, positions, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def write_ogg(path: Path, audio: Audio) -> None:
    """Write mono audio as Vorbis, in blocks: libsndfile overflows its stack on long writes."""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(audio), 16384):
            file.write(audio[start : start + 16384])


def make_track(job: Job) -> Track:
    """Make one track and return its row; the audio is renamed into place last.

    Raises ``SynthError`` with a sentence when it cannot be made.
    """
    rng = track_rng(job.seed, job.id)
    seconds = float(rng.uniform(*SECONDS))
    with tempfile.TemporaryDirectory(prefix="beattrack-synth-") as scratch:
        folder = Path(scratch)
        score = rearrange(make_score(job, seconds, folder, rng), rng)
        times, positions = fitted(score, seconds, rng)
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
    write_beats(job.out_dir / "beats" / f"{job.id}.beats", times + FLUIDSYNTH_LATENCY_S, positions)
    temporary = job.out_dir / "tracks" / f"{job.id}.part"
    write_ogg(temporary, audio)
    temporary.rename(job.out_dir / "tracks" / f"{job.id}.ogg")
    bpm = 60.0 / float(np.median(np.diff(times)))
    return Track(
        job.id,
        job.kind,
        job.seed,
        round(bpm, 2),
        score.meter,
        soundfont.stem,
        round(len(audio) / SAMPLE_RATE, 2),
        score.source,
        f"{score.licence}; {soundfont_licence(soundfont)}",
    )


def read_metadata(path: Path) -> dict[str, Track]:
    """Rows of a ``metadata.csv`` by id; none when the file is not there."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        r["id"]: Track(
            r["id"],
            r["kind"],
            int(r["seed"]),
            float(r["bpm"]),
            int(r["meter"]),
            r["soundfont"],
            float(r["seconds"]),
            r["source"],
            r["licence"],
        )
        for r in rows
    }


def write_metadata(path: Path, tracks: Sequence[Track]) -> None:
    """Write the rows, sorted by id, by way of a temporary file."""
    temporary = path.with_suffix(".part")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Track)])
        writer.writeheader()
        writer.writerows(asdict(t) for t in sorted(tracks, key=lambda t: t.id))
    temporary.replace(path)
