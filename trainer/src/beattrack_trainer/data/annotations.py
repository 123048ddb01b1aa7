"""Annotations as text files: beats (``.beats``, the Harmonix Set's ``.txt``) and segments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beattrack_trainer.files import write_text

BEATS_SUFFIXES = (".beats", ".txt")  # the first is preferred where both are there
MAX_BYTES = 4_000_000  # about 150 000 beats; a larger file is something else
MAX_POSITION = 32  # the longest bar of the Harmonix Set has 14 beats
# A beat this little before the first sample was cut off with the sound before it (7 of the 911
# corrected Harmonix files); one further off shows that the file belongs to other audio.
EARLY_S = 0.5
NO_BEATS = "no beats"  # a file that holds this comment alone says that nothing in it is a beat


@dataclass(frozen=True)
class Annotation:
    """What one file of beats holds."""

    beats: NDArray[np.float64]  # [beats, 2]: seconds from the first sample, beat in bar from 1
    lines: tuple[int, ...]  # of the file, from 1, for each beat
    early: int  # beats left out because they lie before the first sample
    extra: tuple[tuple[str, ...], ...]  # what each of these lines holds beyond two columns

    @property
    def says_none(self) -> bool:
        """Whether the file says that there are no beats."""
        return not len(self.beats) and not self.early


def read_text(path: Path) -> str:
    """Return a text file of bounded size, UTF-8 with or without a byte order mark.

    Raises:
        ValueError: it cannot be read, is no file, empty, too large or no text; one sentence.
    """
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is missing or no file"
            raise ValueError(f"'{path}' {what}: a text file must stand there.")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"'{path}' cannot be read: {error.strerror}.") from None
    if len(raw) > MAX_BYTES:
        raise ValueError(f"'{path}' is larger than {MAX_BYTES // 10**6} MB: it is no annotation.")
    if not raw.strip():
        raise ValueError(f"'{path}' is empty.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"'{path}' is no UTF-8 text.")
    return text


def _rows(path: Path) -> list[tuple[int, str]]:
    """Return line numbers and lines, without blank lines and comments (``#``).

    None at all is an error, unless a comment says ``# no beats``.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    found = [(n, line) for n, line in enumerate(lines, start=1) if line and line[0] != "#"]
    if not found and not any(line.lstrip("# ").lower() == NO_BEATS for line in lines):
        raise ValueError(f"'{path}' holds nothing but blank lines and comments.")
    return found


def _number(text: str, path: Path, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        comma = "," in text and _is_number(text.replace(",", "."))
        hint = " (decimals take a point)" if comma else ""
        raise ValueError(f"'{path}', line {line}: {text!r:.40} is no number{hint}.") from None
    if not math.isfinite(value):
        raise ValueError(f"'{path}', line {line}: {text!r:.40} is no time or position.")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_annotation(path: Path) -> Annotation:
    """Return all that a file of beats holds.

    Each line is a time in seconds and a beat in bar, apart by tabs or spaces; the Harmonix Set adds
    the number of the bar. Positions may be written 1 or 1.0. A file that holds nothing but the
    comment ``# no beats`` is an annotation too: of speech, applause, noise.

    Raises:
        ValueError: no text; a line that is not such; times that do not increase or lie more than
            0.5 s before the first sample; positions that are not whole or not in 1-32. One sentence
            that names the line.
    """
    beats, lines, extra, early = [], [], [], 0
    last = -math.inf
    for line, text in _rows(path):
        cells = text.split()
        if len(cells) < 2:
            _number(cells[0], path, line)
            raise ValueError(f"'{path}', line {line}: a time stands there without a beat in bar.")
        time, position = (_number(cell, path, line) for cell in cells[:2])
        if time < -EARLY_S:
            raise ValueError(f"'{path}', line {line}: {time:g} s lies before the first sample.")
        if time <= last:
            problem = "repeats the time before it" if time == last else f"comes after {last:g} s"
            raise ValueError(f"'{path}', line {line}: {time:g} s {problem}; times must increase.")
        if position != int(position) or not 1 <= position <= MAX_POSITION:
            raise ValueError(
                f"'{path}', line {line}: the beat in bar is {position:g}; it must be a whole "
                f"number from 1 to {MAX_POSITION}."
            )
        last = time
        if time < 0:
            early += 1
            continue
        beats.append((time, position))
        lines.append(line)
        extra.append(tuple(cells[2:]))
    table = np.array(beats, dtype=np.float64).reshape(-1, 2)
    return Annotation(table, tuple(lines), early, tuple(extra))


def read_beats(path: Path) -> NDArray[np.float64]:
    """Return annotated beats, float64 [beats, 2]: seconds from the first sample, beat in bar.

    Beats up to 0.5 s before the first sample are left out.

    Raises:
        ValueError: as ``read_annotation``.
    """
    return read_annotation(path).beats


def read_segments(path: Path) -> list[tuple[float, str]]:
    """Return the sections of a song: start in seconds and label, which holds until the next.

    Raises:
        ValueError: no text, a line without start and label, or starts that decrease.
    """
    found: list[tuple[float, str]] = []
    for line, text in _rows(path):
        cells = text.split(maxsplit=1)
        start = _number(cells[0], path, line)
        if len(cells) < 2:
            raise ValueError(f"'{path}', line {line}: a start stands there without a label.")
        if found and start < found[-1][0]:
            raise ValueError(f"'{path}', line {line}: {start:g} s comes after {found[-1][0]:g} s.")
        found.append((start, cells[1]))
    return found


def write_beats(path: Path, beats: NDArray[np.float64]) -> None:
    """Write beats, float64 [beats, 2], as ``.beats``: under a temporary name, then renamed."""
    rows = "".join(f"{time:.6f}\t{position:.0f}\n" for time, position in beats)
    write_text(path, rows)
