"""Where a run's figures go: ``metrics.csv`` in its folder, and W&B."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from beattrack_trainer.files import naming, replacing

METRICS = "metrics.csv"
TRAINED = tuple(f"train/{k}" for k in ("loss", "beat", "downbeat", "tempo"))
VALIDATED = tuple(
    f"val/{k}" for k in ("loss", "beat", "downbeat", "tempo", "f", "beat_f", "downbeat_f")
)
COLUMNS = ("step", *TRAINED, "learning_rate", "frames_per_second", *VALIDATED)


class MetricsFile(Logger):
    """One CSV file over all starts of a run; a row has what was known at a step, the rest empty.

    Lightning's CSVLogger begins a new file at each start and loses what a kill leaves unwritten.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / METRICS

    @property
    def name(self) -> str:
        """The file."""
        return METRICS

    @property
    def version(self) -> int:
        """There is one."""
        return 0

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings lie in settings.yaml."""

    @rank_zero_only  # type: ignore[untyped-decorator]
    def keep_until(self, step: int) -> None:
        """Drop the rows after ``step``: a resumed run writes them again."""
        rows = [r for r in read_metrics(self._path) if r["step"] <= step]
        with replacing(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({**r, "step": int(r["step"])} for r in rows)

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; it is on disk when this returns."""
        row = {k: f"{v:.6g}" for k, v in metrics.items() if k in COLUMNS}
        with naming(self._path), self._path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow({"step": step, **row})


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics file without their empty cells; a torn last row is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for cells in csv.DictReader(file):
            try:
                row = {k: float(cells[k]) for k in COLUMNS if cells.get(k)}
            except ValueError:
                continue
            if "step" in row:
                rows.append(row)
    return rows
