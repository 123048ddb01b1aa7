"""``metadata.csv`` of a data set: what is known of each track beside its beats."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from beattrack_trainer.data.annotations import read_text

# Names of the columns that are read, in lower case; the first of each is the Harmonix Set's.
ID_COLUMNS = ("file", "id", "track")
DURATION_COLUMNS = ("duration", "seconds")
BPM_COLUMNS = ("bpm", "tempo")
GENRE_COLUMNS = ("genre",)


@dataclass(frozen=True)
class TrackInfo:
    """A row of the table, as far as it is used."""

    duration_s: float | None
    bpm: float | None
    genre: str = ""  # empty where there is none


def read_metadata(path: Path) -> dict[str, TrackInfo]:
    """Return the row of each track id.

    Raises:
        ValueError: no text, no header with a column of ids, an id twice, or a duration or tempo
            that is no positive number. One sentence that names the line.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    found: dict[str, TrackInfo] = {}
    try:
        header = [cell.strip().lower() for cell in next(reader)]
        wanted = (ID_COLUMNS, GENRE_COLUMNS, DURATION_COLUMNS, BPM_COLUMNS)
        columns = [_column(header, names) for names in wanted]
        if columns[0] is None:
            raise ValueError(f"'{path}' has no column named {' or '.join(ID_COLUMNS)}.")
        for row in reader:
            if not any(row):
                continue
            name, genre, *numbers = (_cell(row, column) for column in columns)
            where = f"'{path}', line {reader.line_num}"
            if not name or name in found:
                problem = f"'{name:.60}' stands there twice" if name else "the id is missing"
                raise ValueError(f"{where}: {problem}.")
            duration, bpm = (_positive(text, where) for text in numbers)
            found[name] = TrackInfo(duration, bpm, genre)
    except csv.Error as error:
        raise ValueError(f"'{path}', line {reader.line_num}: {error}.") from None
    return found


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _cell(row: list[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""


def _positive(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{where}: {text!r:.40} is no positive number.")
    return value
