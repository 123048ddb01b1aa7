"""Data set folder to feature store: the runtime's own features, kept in half precision."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from beattrack.config import FeatureConfig
from beattrack.features import FeatureStream
from beattrack_runtime.errors import BeattrackError
from beattrack_trainer.data.annotations import read_annotation
from beattrack_trainer.data.audio import decoder_warnings, read_blocks
from beattrack_trainer.data.folders import DataSet, Track
from beattrack_trainer.data.pool import DIED, run_each
from beattrack_trainer.data.store import FeatureStore, TrackNote, stamp

# What a bad file may raise; anything else is an error of ours.
_BAD_FILE = (BeattrackError, ValueError, OSError, MemoryError)


@dataclass
class Report:
    """What preprocessing did with one data set."""

    name: str
    done: int = 0  # tracks computed now
    present: int = 0  # tracks that were there
    refreshed: int = 0  # of these, the ones whose annotation was read again
    removed: int = 0  # tracks that the data set no longer has or that are no longer usable
    seconds: float = 0.0  # of audio computed now
    took_s: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)  # track id: why
    remarks: dict[str, str] = field(default_factory=dict)  # of tracks that are used nevertheless

    @property
    def usable(self) -> int:
        """Tracks in the store now."""
        return self.done + self.present

    @property
    def speed(self) -> float:
        """Seconds of audio computed in a second."""
        return self.seconds / self.took_s if self.took_s else 0.0

    def __str__(self) -> str:
        parts = [f"{self.done} done", f"{self.present} already there"]
        if self.refreshed:
            parts[-1] += f" ({self.refreshed} with new annotations)"
        parts.append(f"{len(self.skipped)} skipped")
        if self.removed:
            parts.append(f"{self.removed} removed")
        text = f"{self.name}: {', '.join(parts)}"
        if self.done:
            text += f"; {self.seconds / 3600:.2f} h at {self.speed:.0f} x real time"
        return text


@dataclass(frozen=True)
class _Answer:
    """What came of one track: what the store now knows of it, or else why it was skipped."""

    note: TrackNote | None = None
    complaint: str = ""


def compute_features(path: Path, features: FeatureConfig) -> tuple[NDArray[np.float16], float]:
    """Return a file's features, float16 [frames, channels, bins], and its length in seconds.

    The frames are those that the runtime's ``FeatureStream`` gives, rounded to half precision.

    Raises:
        BeattrackError: there is no such file, or none of it can be read.
        ValueError: it holds samples that are no numbers.
    """
    stream = FeatureStream(features)
    parts, samples = [], 0
    for block in read_blocks(path, features.sample_rate):
        if not np.isfinite(block).all():
            raise ValueError("it holds samples that are not finite numbers.")
        samples += len(block)
        parts.append(stream.push(block).astype(np.float16))
    return np.concatenate(parts), samples / features.sample_rate


def _beats_within(path: Path, seconds: float) -> list[list[float]]:
    """Return the beats of an annotation that lie within the audio. Raises ValueError, OSError."""
    annotation = read_annotation(path)
    beats = annotation.beats
    inside = beats[(beats[:, 0] >= 0) & (beats[:, 0] < seconds)]
    if len(inside) < 2 and not annotation.says_none:
        raise ValueError("fewer than two beats lie within the audio.")
    rows: list[list[float]] = inside.tolist()
    return rows


def _store_track(job: Track, store: FeatureStore) -> _Answer:
    """Compute one track's features and add them; what is wrong with its files is a complaint."""
    try:
        # Before they are read: a file that changes meanwhile is then taken for changed.
        stamps = {"audio": stamp(job.audio), "annotation": stamp(job.beats)}
        with decoder_warnings() as warnings:
            frames, seconds = compute_features(job.audio, store.features)
        beats = _beats_within(job.beats, seconds)
    except _BAD_FILE as error:
        return _Answer(complaint=str(error) or type(error).__name__)
    # What fails from here on is the disk, not the track: that ends the whole run.
    store.add(
        job.name,
        frames,
        {**stamps, "seconds": seconds, "beats": beats, "remark": " ".join(warnings)},
    )
    return _Answer(store.note(job.name))


def prepare(data: DataSet, features: FeatureConfig) -> tuple[list[Track], FeatureStore]:
    """Return a set's tracks and its store, which is made if need be.

    Raises:
        ConfigError: no tracks, or the store was made with other settings.
        ValueError: features that are not possible.
    """
    FeatureStream(features)  # raises for impossible settings, of which no track is to blame
    return data.tracks(), FeatureStore.create(data.feature_dir(features), features)


def preprocess(
    data: DataSet, features: FeatureConfig, jobs: int = 1, console: Console | None = None
) -> Report:
    """Bring a data set's store up to date: afterwards it mirrors the data set.

    Tracks are computed if they are new or their audio has changed. If only the annotation has, it
    alone is read again. Tracks that the set no longer has, or whose files can no longer be used,
    leave the store. A run that was stopped goes on where it was.

    Args:
        data: the data set.
        features: what to compute.
        jobs: processes.
        console: where progress is shown; None shows none.

    Raises:
        ConfigError: no tracks, the store was made with other settings, or another process is
            adding to it.
        OSError: the store cannot be written.
    """
    tracks, store = prepare(data, features)
    report = Report(data.name)
    begun = time.monotonic()
    with store.adding():
        for name in set(store.names()) - {t.name for t in tracks}:
            store.remove(name)
            report.removed += 1
        work = [t for t in tracks if not _up_to_date(t, store, report)]
        try:
            with _Progress(report, work, console) as progress:
                for job, answer in run_each(partial(_store_track, store=store), work, jobs):
                    _count(job, answer or _Answer(complaint=DIED), store, report)
                    report.took_s = time.monotonic() - begun
                    progress.advance(job)
            store.write_skipped(report.skipped)
        except OSError as error:
            raise OSError(
                f"The features cannot be written to '{store.path}': {error.strerror or error}; "
                "the same command goes on from here."
            ) from None
    return report


def _up_to_date(job: Track, store: FeatureStore, report: Report) -> bool:
    """Whether a track needs no computing; its annotation is read again if that has changed."""
    note = store.note(job.name)
    if note is None:
        return False
    try:
        if note.audio != stamp(job.audio):
            return False
        annotation = stamp(job.beats)
        if note.annotation != annotation:
            beats = _beats_within(job.beats, note.seconds)
            note = replace(note, annotation=annotation, beats=beats)
            store.annotate(job.name, note)
            report.refreshed += 1
    except _BAD_FILE as error:
        _count(job, _Answer(complaint=str(error)), store, report)
        return True
    report.present += 1
    if note.remark:
        report.remarks[job.name] = note.remark
    return True


def _count(job: Track, answer: _Answer, store: FeatureStore, report: Report) -> None:
    if answer.note is None:
        report.skipped[job.name] = answer.complaint
        report.removed += store.note(job.name) is not None
        store.remove(job.name)
        return
    report.done += 1
    report.seconds += answer.note.seconds
    if answer.note.remark:
        report.remarks[job.name] = answer.note.remark


class _Progress:
    """The line that shows what is being done; its bar and its rest of time go by bytes of audio."""

    def __init__(self, report: Report, work: list[Track], console: Console | None) -> None:
        self._report, self._count = report, len(work)
        self._bytes = {t.name: t.audio.stat().st_size if t.audio.exists() else 0 for t in work}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=console is None or not work,
        )
        total = max(1, sum(self._bytes.values()))
        self._task = self._bar.add_task(report.name, total=total, done=f"0/{self._count} tracks")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, job: Track) -> None:
        """Count one track as dealt with."""
        report = self._report
        dealt = self._count - len(self._bytes) + 1
        hours, speed = report.seconds / 3600, report.speed
        done = f"{dealt}/{self._count} tracks, {hours:.1f} h, {speed:.0f} x real time,"
        self._bar.update(self._task, advance=self._bytes.pop(job.name), done=done)
