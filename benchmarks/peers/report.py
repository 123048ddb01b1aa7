"""The results as a table in the terminal, as Markdown and as JSON."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from cost import machine
from peers.hearing import ROOT
from peers.scoring import SHOWN, Row, Song, costs

FORMAT = 1
TITLES = (
    "peer", "songs", "beat F", "CMLt", "AMLt", "downbeat F", "late by", "delay", "lock",
    "hop", "median", "p99", "x real time", "memory",
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """All that is reported."""

    folder: str  # name of the folder of songs
    songs: list[Song]
    rows: list[Row]
    seconds: float  # of audio
    left_out: dict[str, str]  # peers that could not be installed, songs that could not be scored
    failed: dict[str, str]  # "peer on song": why


def cells(row: Row, songs: list[Song]) -> list[str]:
    """Return one line of the table, one text for each of TITLES."""
    means, cost = row.means(), costs(row.peer, songs)
    scores = [_number(means[name], ".3f") for name in SHOWN[:4]]
    times = [_number(means["latency_ms"], "+.0f", " ms"), _number(means["delay_ms"], "+.0f", " ms")]
    lock = "never" if row.peer.online and means["lock_s"] is None else None
    times.append(lock or _number(means["lock_s"], ".1f", " s"))
    hop = cost["hop_s"] and cost["hop_s"] * 1000
    return [
        row.label, str(len(row.songs)), *scores, *times, _number(hop, ".1f", " ms"),
        _number(cost["hop_median_ms"], ".2f", " ms"), _number(cost["hop_p99_ms"], ".2f", " ms"),
        _number(cost["real_time_factor"], ".3f"), _number(cost["peak_mb"], ".0f", " MB"),
    ]  # fmt: skip


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def table(results: Results) -> Table:
    """Return the table for the terminal."""
    shown = Table(title=_title(results), title_justify="left")
    for title in TITLES:
        shown.add_column(title, justify="left" if title == "peer" else "right", no_wrap=True)
    for row in results.rows:
        shown.add_row(
            *cells(row, results.songs), style="bold" if row.peer.runner == "beattrack" else None
        )
    return shown


def markdown(results: Results) -> str:
    """Return the table and what is needed to read it."""
    made = facts(results)
    lines = [
        f"# {_title(results)}",
        "",
        _line(TITLES),
        _line(["---", *["---:"] * (len(TITLES) - 1)]),
    ]
    lines += [_line(cells(row, results.songs)) for row in results.rows]
    lines += ["", "What each peer's times are:", ""]
    peers = {row.peer.name: row.peer for row in results.rows}
    lines += [f"- {p.name}: {p.times}" for p in peers.values()]
    lines += ["", f"Measured {made['finished']} on {made['machine']} with `{made['command']}`."]
    lines += [f"- {name}: {_versions(v)}" for name, v in made["versions"].items()]
    notes = {**results.left_out, **results.failed}
    if notes:
        lines += ["", "Left out or failed:", "", *(f"- {k}: {v}" for k, v in notes.items())]
    return "\n".join(lines) + "\n"


def _line(cells_: Any) -> str:
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells_) + " |"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in versions.items())


def _title(results: Results) -> str:
    minutes = results.seconds / 60
    return f"Beat trackers on {results.folder}: {len(results.songs)} songs, {minutes:.0f} minutes"


def facts(results: Results) -> dict[str, Any]:
    """Return how the results were made."""
    versions = {}
    for row in results.rows:
        for song in results.songs:
            if row.peer.name in song.heard:
                versions[row.peer.name] = song.heard[row.peer.name].versions
                break
    return {
        "command": "just bench-peers " + shlex.join(sys.argv[1:]),
        "finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine("numpy", "mir_eval"),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 1),
        "commit": _commit(),
        "beattrack": version("beattrack"),
        "versions": versions,
    }


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or None


def as_json(results: Results) -> dict[str, Any]:
    """Return everything as plain JSON types."""
    return {
        "format": FORMAT,
        "folder": results.folder,
        "audio_s": round(results.seconds, 1),
        "rows": [
            {
                "peer": row.peer.name,
                "times": row.times,
                "online": row.peer.online,
                "how": row.peer.times,
                "scores": row.means(),
                "beat_f_interval": row.interval(),
                "cost": costs(row.peer, results.songs),
                "songs": {
                    name: {k: v for k, v in s.to_dict().items() if k in SHOWN}
                    for name, s in row.songs.items()
                },
            }
            for row in results.rows
        ],
        "left_out": results.left_out,
        "failed": results.failed,
        "made": facts(results),
    }


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
