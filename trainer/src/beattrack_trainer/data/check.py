"""Check a data set before hours go into it: what is missing, odd, or does not lie on its audio."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track as progress

from beattrack.config import ConfigError
from beattrack_runtime.errors import BeattrackError
from beattrack_runtime.sources import FileSource
from beattrack_trainer.data.alignment import Alignment, Floats, align, onset_strength
from beattrack_trainer.data.annotations import read_annotation, read_segments, write_beats
from beattrack_trainer.data.audio import decoder_warnings
from beattrack_trainer.data.findings import Finding, check_beats
from beattrack_trainer.data.folders import DataSet, Listing, Track
from beattrack_trainer.data.folds import read_folds
from beattrack_trainer.data.metadata import TrackInfo, read_metadata
from beattrack_trainer.data.pool import DIED, run_each
from beattrack_trainer.data.reports import SetReport, TrackReport

BEYOND_S = 1.0  # beats that end this long after the audio
LATE_S = 20.0  # of music without beats at the start that are worth a look
EARLY_END_S = 30.0  # and at the end; the Harmonix Set has up to 22 s there
DURATION_S = 2.0  # between the audio and the length that metadata.csv gives
OCTAVES = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)  # between tempi that mean the same music
SAME_TEMPO = 0.08
_BAD_FILE = (BeattrackError, ValueError, OSError, MemoryError)


def check(
    data: DataSet, jobs: int = 1, always_align: bool = False, console: Console | None = None
) -> SetReport:
    """Check a data set.

    Args:
        data: the data set.
        jobs: processes.
        always_align: look for the offset of every track, not of suspicious ones alone.
        console: where progress is shown; None shows none.

    Raises:
        ConfigError: a folder cannot be read.
    """
    listing = data.listing()
    report = SetReport(data.name, str(data.base), len(listing.audio), len(listing.beats))
    report.findings += _pairs(listing, data)
    info, problems = _metadata(data, listing)
    report.findings += [*problems, *_folds(data, listing), *_segments(data)]
    work = partial(check_track, info=info, always_align=always_align)
    done = run_each(work, listing.tracks, jobs)
    shown = progress(
        done, data.name, total=len(listing.tracks), console=console, disable=console is None
    )
    for job, answer in shown:
        died = TrackReport(job.name, (Finding("audio_unreadable", job.name, f"{DIED}."),))
        report.tracks[job.name] = answer or died
    usable = 0
    for _, found in sorted(report.tracks.items()):
        report.findings += found.findings
        usable += not any(f.kind.endswith("unreadable") for f in found.findings)
    if not usable:
        what = f"No track of '{data.base}' has both audio and beats that can be read."
        report.findings.append(Finding("nothing_to_train", "", what))
    return report


def _pairs(listing: Listing, data: DataSet) -> Iterator[Finding]:
    """Yield files that have no counterpart, and those that share their id with another."""
    used = {p for t in listing.tracks for p in (t.audio, t.beats)}
    names = {n for n, f in listing.audio.items() if f not in used}
    others = {n for n, f in listing.beats.items() if f not in used}
    for name in sorted(names):
        what = f"'{listing.audio[name]}' has no beats in {data.beats_dir}{_near(name, others)}."
        yield Finding("audio_without_beats", name, what)
    for name in sorted(others):
        what = f"'{listing.beats[name]}' has no audio in {data.track_dir}{_near(name, names)}."
        yield Finding("beats_without_audio", name, what)
    for spare, kept in listing.spare:
        if spare.parent != kept.parent:
            what = f"'{spare}' and '{kept}' have the same id; rename one and its annotation."
            yield Finding("id_not_unique", kept.stem, what)
        else:
            yield Finding("spare_file", kept.stem, f"'{spare}' is not used: '{kept.name}' is.")


def _near(name: str, others: set[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.75)
    return f"; the nearest without a partner is '{near[0]}'" if near else ""


def _metadata(data: DataSet, listing: Listing) -> tuple[dict[str, TrackInfo], list[Finding]]:
    if not data.metadata.exists():
        return {}, []
    try:
        info = read_metadata(data.metadata)
    except ValueError as error:
        return {}, [Finding("metadata_unreadable", "", str(error))]
    known = {t.name for t in listing.tracks} | {t.beats.stem for t in listing.tracks}
    missing = [t.name for t in listing.tracks if not {t.name, t.beats.stem} & info.keys()]
    if known and missing:
        what = f"{data.metadata} lacks {len(missing)} track(s), such as '{missing[0]}'."
        return info, [Finding("metadata_missing", "", what)]
    return info, []


def _folds(data: DataSet, listing: Listing) -> Iterator[Finding]:
    path = data.base / "folds.tsv"
    if not path.exists():
        return
    try:
        folds = read_folds(path)
    except ConfigError as error:
        yield Finding("folds_unreadable", "", str(error))
        return
    missing = [t.name for t in listing.tracks if t.name not in folds]
    if missing:
        what = f"{path} lacks {len(missing)} track(s), such as '{missing[0]}'"
        yield Finding("folds_unknown", "", f"{what}; a hash of the name decides their fold.")


def _segments(data: DataSet) -> Iterator[Finding]:
    for path in sorted((data.base / "segments").glob("[!.]*.txt")):
        try:
            read_segments(path)
        except ValueError as error:
            yield Finding("segments_unreadable", path.stem, str(error))


def check_track(job: Track, info: dict[str, TrackInfo], always_align: bool) -> TrackReport:
    """Check one track: its annotation, its audio's header and, where need be, all of its audio."""
    found: list[Finding] = []
    beats: Floats = np.empty((0, 2))
    try:
        annotation = read_annotation(job.beats)
        beats = annotation.beats
        found += check_beats(job.name, annotation)
    except _BAD_FILE as error:
        found.append(Finding("beats_unreadable", job.name, str(error)))
    alignment = None
    seconds = 0.0
    with decoder_warnings() as warnings:
        try:
            seconds, onsets = _measure(job.audio)
            row = info.get(job.name) or info.get(job.beats.stem) or TrackInfo(None, None)
            odd = list(_lengths(job.name, beats, seconds, row)) if len(beats) >= 2 else []
            if len(beats) >= 2 and (odd or always_align):
                onsets = onset_strength(job.audio) if onsets is None else onsets
                alignment = align(onsets, beats[:, 0])
                found += _judged(job.name, odd, alignment)
        except _BAD_FILE as error:
            found.append(Finding("audio_unreadable", job.name, str(error) or type(error).__name__))
    found += [Finding("audio_damaged", job.name, text) for text in dict.fromkeys(warnings)]
    return TrackReport(job.name, tuple(found), seconds, len(beats), alignment)


def _measure(audio: Path) -> tuple[float, Any]:
    """Return a file's length in s, from its header if that says so, and its onsets if not."""
    source = FileSource(audio)
    try:
        first = next((b for b in source.blocks() if len(b)), None)  # a header alone proves little
        if first is None:
            raise ValueError(f"'{audio}' holds no sound.")
        if not np.isfinite(first).all():
            raise ValueError(f"'{audio}' holds samples that are not finite numbers.")
        if source.duration_s is not None:
            return source.duration_s, None
    finally:
        source.close()
    onsets = onset_strength(audio)
    return len(onsets) / 50.0, onsets


def _lengths(name: str, beats: Floats, seconds: float, row: TrackInfo) -> Iterator[Finding]:
    """Yield where beats, audio and metadata disagree about lengths and tempo."""
    first, last = beats[0, 0], beats[-1, 0]
    inside = int((beats[:, 0] < seconds).sum())
    if inside < 2:
        what = f"{inside} beat(s) lie within the {seconds:.1f} s of audio; 2 must."
        yield Finding("too_few_beats", name, what)
    if last > seconds + BEYOND_S:
        what = f"The beats end at {last:.2f} s, the audio at {seconds:.2f} s"
        yield Finding("beats_beyond_audio", name, what)
    if first > LATE_S:
        yield Finding("beats_start_late", name, f"The first beat comes at {first:.2f} s.")
    if seconds - last > EARLY_END_S:
        what = f"The audio goes on for {seconds - last:.1f} s after the last beat."
        yield Finding("beats_end_early", name, what)
    if row.duration_s is not None and abs(row.duration_s - seconds) > DURATION_S:
        what = f"The audio lasts {seconds:.2f} s, by metadata.csv {row.duration_s:.2f} s."
        yield Finding("duration_differs", name, what)
    bpm = 60 / float(np.median(np.diff(beats[:, 0])))
    if row.bpm and min(abs(bpm / row.bpm / o - 1) for o in OCTAVES) > SAME_TEMPO:
        what = f"The beats have {bpm:.1f} bpm, by metadata.csv {row.bpm:.1f}."
        yield Finding("tempo_differs", name, what)


def _judged(name: str, odd: list[Finding], alignment: Alignment | None) -> Iterator[Finding]:
    """Yield what was odd in the light of the alignment, and what that shows by itself.

    Beats beyond the audio are harmless where the rest lies on it: they are left out. An offset that
    is found explains them.
    """
    known = alignment is not None and alignment.confident
    for finding in odd:
        if finding.kind != "beats_beyond_audio":
            yield finding
        elif known and alignment is not None and alignment.aligned:
            yield Finding("beats_run_on", name, f"{finding.message}; those within lie on it.")
        elif not known:
            yield Finding(finding.kind, name, f"{finding.message}; no more is known to lie on it.")
    if alignment is None or not alignment.confident:
        contrast = "nothing to go by" if alignment is None else _contrast(alignment)
        yield Finding("alignment_unclear", name, f"Whether beats lie on the music: {contrast}.")
    elif not alignment.aligned:
        more = "" if alignment.unique else "; or as well whole beats more, the music is so even"
        speed = "" if alignment.speed == 1 else f" with a speed of {alignment.speed:.5f}"
        what = f"An offset of {alignment.offset_s:+.3f} s{speed} would align the beats"
        kind = "offset" if alignment.speed == 1 else "speed"
        yield Finding(kind, name, f"{what} ({_contrast(alignment)}){more}.")
    elif alignment.better_s is not None:
        what = (
            f"The beats lie on the music, but onsets {alignment.better_s:+.3f} s away are stronger"
        )
        yield Finding("stronger_elsewhere", name, f"{what}: listen whether these are off-beats.")


def _contrast(a: Alignment) -> str:
    change = f"{a.contrast_before:.2f} -> {a.contrast_after:.2f}"
    return f"contrast {change}, confidence {a.confidence:.2f}"


def write_aligned(data: DataSet, report: SetReport, folder: Path) -> tuple[int, int, int]:
    """Write the annotations of all tracks, aligned where that is sure, into an empty folder.

    A track whose beats do not lie on the audio, and whose place is not sure either or is not the
    only one, is left out.

    Returns:
        How many were aligned, written as they are, and left out.

    Raises:
        ConfigError: the folder is not empty.
    """
    require_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    aligned = same = left = 0
    for job in data.listing().tracks:
        found = report.tracks[job.name]
        place = found.alignment
        broken = {f.kind for f in found.findings if f.level == "error"} - {"offset", "speed"}
        moved = place is not None and not place.aligned
        if broken or (moved and not (place and place.confident and place.unique)):
            left += 1
            continue
        beats = read_annotation(job.beats).beats
        if moved and place is not None:
            beats = np.column_stack([place.apply(beats[:, 0]), beats[:, 1]])
            beats = beats[(beats[:, 0] >= 0) & (beats[:, 0] < found.seconds)]
            aligned += 1
        else:
            same += 1
        write_beats(folder / f"{job.name}.beats", beats)
    return aligned, same, left


def require_empty(folder: Path) -> None:
    """Raise ConfigError unless a folder is empty or missing: no annotation is written over."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' is not an empty folder; give another: nothing is replaced.")
