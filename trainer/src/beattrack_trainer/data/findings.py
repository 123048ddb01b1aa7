"""What a check of a data set may find, and what the beats of one annotation show by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from beattrack_trainer.data.annotations import Annotation

# What harms training is an error; the rest is worth a look. docs/datasets.md explains each.
KINDS = {
    "nothing_to_train": "error",
    "audio_unreadable": "error",
    "beats_unreadable": "error",
    "too_few_beats": "error",
    "folds_unreadable": "error",
    "id_not_unique": "error",
    "offset": "error",
    "speed": "error",
    "beats_beyond_audio": "error",
    "audio_without_beats": "warning",
    "beats_without_audio": "warning",
    "spare_file": "warning",
    "audio_damaged": "warning",
    "beats_run_on": "warning",
    "beats_start_late": "warning",
    "beats_end_early": "warning",
    "duration_differs": "warning",
    "tempo_differs": "warning",
    "alignment_unclear": "warning",
    "stronger_elsewhere": "warning",
    "beat_before_audio": "warning",
    "beat_gap": "warning",
    "beat_too_many": "warning",
    "tempo_implausible": "warning",
    "bar_miscounted": "warning",
    "unknown_columns": "warning",
    "metadata_unreadable": "warning",
    "metadata_missing": "warning",
    "segments_unreadable": "warning",
    "folds_unknown": "warning",
}
MIN_BPM, MAX_BPM = 30.0, 300.0
# A beat is missing where an interval is this much longer than its neighbours, and one is too many
# where it is this much shorter; music itself rarely changes so much from beat to beat.
LONG, SHORT = 1.7, 0.6
NEIGHBOURS = 9  # intervals, the one in question in their middle


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    kind: str  # one of KINDS
    track: str  # id; empty where the whole data set is meant
    message: str  # one sentence

    @property
    def level(self) -> str:
        """Either 'error' or 'warning'."""
        return KINDS[self.kind]

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON types."""
        return {"level": self.level, **asdict(self)}


def check_beats(track: str, annotation: Annotation) -> Iterator[Finding]:
    """Yield what is odd about beats that could be read."""
    beats, lines = annotation.beats, annotation.lines
    if annotation.early:
        what = f"{annotation.early} beat(s) lie before the first sample and are left out."
        yield Finding("beat_before_audio", track, what)
    yield from _columns(track, annotation)
    if annotation.says_none:
        return
    if len(beats) < 2:
        yield Finding("too_few_beats", track, f"{len(beats)} beat(s) are annotated; 2 must be.")
        return
    gaps = np.diff(beats[:, 0])
    bpm = 60 / float(np.median(gaps))
    if not MIN_BPM <= bpm <= MAX_BPM:
        usual = f"{MIN_BPM:g}-{MAX_BPM:g} are usual"
        yield Finding("tempo_implausible", track, f"The tempo is {bpm:.1f} bpm; {usual}.")
    # Not scipy's median_filter, which gives zeros for fewer than half a window.
    around = sliding_window_view(np.pad(gaps, NEIGHBOURS // 2, mode="edge"), NEIGHBOURS)
    ratio = gaps / np.median(around, axis=1)
    yield from _odd("beat_gap", track, annotation, ratio > LONG, "no beat follows for {gap:.2f} s")
    short = "the next beat follows after only {gap:.3f} s"
    yield from _odd("beat_too_many", track, annotation, ratio < SHORT, short)
    now, after = beats[:-1, 1], beats[1:, 1]
    wrong = np.flatnonzero((after != 1) & (after != now + 1))
    if len(wrong):
        i = int(wrong[0])
        what = f"position {after[i]:g} follows {now[i]:g} in line {lines[i + 1]}"
        yield Finding("bar_miscounted", track, f"{_times(len(wrong))}: {what}.")
    if not (beats[:, 1] == 1).any():
        yield Finding("bar_miscounted", track, "No beat is a downbeat (position 1).")


def _odd(
    kind: str, track: str, annotation: Annotation, where: NDArray[np.bool_], text: str
) -> Iterator[Finding]:
    found = np.flatnonzero(where)
    if len(found):
        i = int(found[0])
        time, after = annotation.beats[i, 0], annotation.beats[i + 1, 0]
        what = text.format(gap=after - time)
        place = f"at {time:.2f} s, line {annotation.lines[i]}"
        yield Finding(kind, track, f"{_times(len(found))}: {place}, {what}.")


def _times(count: int) -> str:
    return "Once" if count == 1 else f"{count} times, first"


def _columns(track: str, annotation: Annotation) -> Iterator[Finding]:
    """Yield whether there is more than a third column with the number of the bar."""
    for line, cells in zip(annotation.lines, annotation.extra, strict=True):
        bar = len(cells) == 1 and cells[0].lstrip("-").isdigit()
        if cells and not bar:
            shown = " ".join(cells)[:40]
            what = f"Line {line} goes on with {shown!r}, which is neither time, beat nor bar."
            yield Finding("unknown_columns", track, what)
            return
