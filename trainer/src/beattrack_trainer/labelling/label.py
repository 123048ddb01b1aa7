"""``trainer label``: a data set from music that nobody has annotated."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack.activations import ActivationModel
from beattrack.config import ConfigError, DecoderConfig
from beattrack.features import compute, flux_bins, spectrum_bins
from beattrack_runtime.errors import BeattrackError
from beattrack_runtime.session import load_model
from beattrack_trainer.data.annotations import read_beats
from beattrack_trainer.data.audio import read_audio
from beattrack_trainer.evaluation.parallel import each
from beattrack_trainer.labelling.agreement import Part, agreed_parts
from beattrack_trainer.labelling.viterbi import best_beats
from beattrack_trainer.synth.ogg import write_ogg
from beattrack_trainer.synth.work import write_whole

AUDIO_SUFFIXES = (".ogg", ".flac", ".wav", ".mp3", ".m4a", ".opus")
BLOCK = 4096  # frames that a model is given at once
METERS = (3, 4)  # what bars are read as
FLUX_GAIN, FLUX_OFFSET = 3.54, -4.86  # as beattrack.model.heads: the flux logit needs no learning
FLUX_LATE = 2  # frames after a beat at which the flux peaks


@dataclass(frozen=True)
class Task:
    """What a worker needs to know beside the file."""

    models: tuple[Path, ...]  # each is a member, and may lead
    votes: tuple[Path, ...]  # folders of <name>.beats of other trackers: members that do not lead
    flux: bool  # the no-learning flux of the first model's features is a member, too
    needed: int  # how many others must agree with the leader
    out: Path


@dataclass(frozen=True)
class Row:
    """A part in ``metadata.csv``."""

    id: str
    source: str
    start: float
    seconds: float
    leader: str
    agreement: float
    bpm: float


def label(audio: Path, task: Task, jobs: int) -> tuple[list[Row], dict[str, str]]:
    """Write a data set of the parts of all files under ``audio`` that are agreed on.

    A file that is done stands in ``labels.json`` and is not done again, so a run that was stopped
    goes on.

    Args:
        audio: a folder; files whose names end in ``AUDIO_SUFFIXES`` are taken.
        task: models, votes and where to write.
        jobs: processes.

    Returns:
        The parts kept, and by file name why a file has none.

    Raises:
        ConfigError: no audio, fewer members than must agree, or a model cannot be used.
    """
    files = sorted(p for p in audio.glob("[!.]*") if p.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ConfigError(f"'{audio}' holds no audio ({', '.join(AUDIO_SUFFIXES)}).")
    members = len(task.models) + len(task.votes) + task.flux
    if members <= task.needed:
        raise ConfigError(f"{members} members cannot agree with {task.needed} others: give more.")
    for path in task.models:
        if not path.is_file():
            raise ConfigError(f"There is no model file '{path}'.")
        load_model(path)  # so that one that cannot be used is told once
    for name in ("tracks", "beats"):
        (task.out / name).mkdir(parents=True, exist_ok=True)
    notes = task.out / "labels.json"
    done = json.loads(notes.read_text("utf-8")) if notes.exists() else {}
    todo = [p for p in files if p.name not in done]
    for path, result in each(partial(_label_file, task), todo, jobs, "Labelling"):
        why = result if isinstance(result, str) else "" if result else "no part is agreed on"
        rows = result if isinstance(result, list) else []
        done[path.name] = {"why": why or "", "rows": [vars(r) for r in rows]}
        write_whole(notes, json.dumps(done, indent=1) + "\n")
    rows = [Row(**r) for note in done.values() for r in note["rows"]]
    _write_table(task.out / "metadata.csv", rows)
    return rows, {name: note["why"] for name, note in done.items() if note["why"]}


def _write_table(path: Path, rows: list[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Row.__annotations__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(r) for r in sorted(rows, key=lambda r: r.id))
    write_whole(path, text.getvalue())


def _label_file(task: Task, path: Path) -> list[Row] | str:
    """Write the parts of one file; a sentence where it cannot be used."""
    try:
        model = _opened(task.models[0])
        rate = model.features.sample_rate
        samples = read_audio(path, rate)
        members = dict(_members(task, path, samples))
    except (BeattrackError, ValueError, OSError) as error:
        return str(error)
    leaders = tuple(p.stem for p in task.models)
    parts = agreed_parts(members, len(samples) / rate, task.needed, leaders)
    return [_write_part(task.out, path, i, part, samples, rate) for i, part in enumerate(parts)]


def _members(
    task: Task, path: Path, samples: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each member's name and beats, float64 [beats, 2]: s, beat in bar."""
    for number, file in enumerate(task.models):
        model = _opened(file)
        decoder = _decoder(model)
        frames = compute(samples, model.features)
        fps = model.features.fps
        beat, downbeat, tempo = _activations(model, frames)
        spectrum = _late(frames[:, :, : spectrum_bins(model.features)], model.latency_frames)
        beats = best_beats(beat, downbeat, tempo, decoder, fps, spectrum)
        beats[:, 0] = (beats[:, 0] + 0.5 - model.latency_frames) / fps + decoder.offset_s
        yield file.stem, beats
        bins = flux_bins(model.features)
        if task.flux and number == 0 and bins:
            logit = FLUX_GAIN * frames[:, 0, -bins:].mean(axis=1) + FLUX_OFFSET
            flux = (1 / (1 + np.exp(-logit))).astype(np.float32)
            found = best_beats(flux, flux, np.empty((len(flux), 0), np.float32), decoder, fps)
            found[:, 0] = (found[:, 0] + 0.5 - FLUX_LATE) / fps + decoder.offset_s
            yield "flux", found
    for folder in task.votes:
        vote = folder / f"{path.stem}.beats"
        yield folder.name, read_beats(vote) if vote.exists() else np.empty((0, 2))


@lru_cache(maxsize=8)
def _opened(path: Path) -> ActivationModel:
    return load_model(path)


def _decoder(model: ActivationModel) -> DecoderConfig:
    """Return the model's own decoder settings, with bars of ``METERS``."""
    values = model.decoder.to_dict() | {"beats_per_bar": list(METERS)}
    return DecoderConfig.from_dict(values)


def _activations(
    model: ActivationModel, frames: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    model.reset()
    blocks = [model.step(frames[i : i + BLOCK]) for i in range(0, len(frames), BLOCK)]
    columns = [
        np.concatenate([getattr(b, k) for b in blocks]) for k in ("beat", "downbeat", "tempo")
    ]
    return columns[0], columns[1], columns[2]


def _late(frames: NDArray[np.float32], latency: int) -> NDArray[np.float32] | None:
    """Return the channels' mean as late as the model's activations, float32 [frames, bins].

    None where the features have no spectrogram.
    """
    if not frames.shape[2]:
        return None
    return np.pad(frames.mean(axis=1), ((latency, 0), (0, 0)))[: len(frames)]


def _write_part(
    out: Path, path: Path, number: int, part: Part, samples: NDArray[np.float32], rate: int
) -> Row:
    """Write audio and beats of a part, the audio last and by way of a temporary name."""
    name = f"{path.stem}_{number}"
    cut = samples[int(part.start * rate) : int(part.end * rate)]
    times = part.beats[:, 0] - int(part.start * rate) / rate
    lines = "".join(
        f"{t:.5f}\t{p:.0f}\n" for t, p in zip(times, part.beats[:, 1], strict=True) if t >= 0
    )
    write_whole(out / "beats" / f"{name}.beats", lines)
    temporary = out / "tracks" / f"{name}.part"
    write_ogg(temporary, cut, rate, zlib.crc32(name.encode()))
    temporary.rename(out / "tracks" / f"{name}.ogg")
    bpm = 60 / float(np.median(np.diff(times)))
    return Row(name, path.name, round(part.start, 3), round(part.end - part.start, 3),
               part.leader, round(part.agreement, 3), round(bpm, 2))  # fmt: skip
