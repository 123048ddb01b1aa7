"""The report of an evaluation: one HTML file that needs nothing else, and tables for the terminal.

Everything that comes from outside (names of files, metadata, provenance) passes through ``_text``.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from beattrack_trainer.evaluation import pictures
from beattrack_trainer.evaluation.evaluate import Evaluation
from beattrack_trainer.evaluation.scores import LEVELS, TIME_LEVELS, found_errors
from beattrack_trainer.evaluation.thresholds import mean_row

WORST = 5  # tracks shown with a picture
LISTED = 25  # tracks in the list of the worst

# key in scores.json, title, unit: what the tables show
HEADLINE = (
    ("beat_f", "beat F", ""), ("beat_f_emitted", "emitted F", ""), ("cmlc", "CMLc", ""),
    ("cmlt", "CMLt", ""), ("amlc", "AMLc", ""), ("amlt", "AMLt", ""),
    ("information_gain", "inf. gain", ""), ("downbeat_f", "downbeat F", ""),
    ("downbeat_cmlt", "downbeat CMLt", ""), ("tempo_acc1", "Acc1", ""), ("tempo_acc2", "Acc2", ""),
    ("latency_ms", "latency", " ms"), ("latency_p90_ms", "latency p90", " ms"),
    ("lock_s", "lock", " s"),
)  # fmt: skip
SHORT = ("beat_f", "beat_f_emitted", "cmlt", "amlt", "downbeat_f", "tempo_acc1", "tempo_acc2",
         "latency_ms", "lock_s")  # fmt: skip
LEVEL_WORDS = {"right": "as annotated", "off_beat": "off-beat", "double": "double",
               "half": "half", "other": "none of these", "silent": "silent"}  # fmt: skip

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #22303c; max-width: 70rem; margin: 0 auto;
  padding: 1rem; background: #fff; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; overflow-wrap: anywhere; margin-bottom: .3rem; }
p, li { overflow-wrap: anywhere; max-width: 60rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .4rem; text-align: right; white-space: nowrap; vertical-align: baseline;
  border-bottom: 1px solid #dde3e8; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 7rem; max-width: 14rem; position: sticky; left: 0; background: #fff; }
tr.first td, tr.first td:first-child { font-weight: 600; background: #eef8f5; }
img { max-width: 100%; height: auto; } .warn { background: #fdf3d8; padding: .5rem .8rem; }
small { color: #5c6b78; }
"""


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def show(value: object, unit: str = "") -> str:
    """Return a score as the tables show it: three decimals, times one; a dash for nothing."""
    if not isinstance(value, (int, float)):
        return "-"
    if not unit:
        return f"{value:.3f}"
    return f"{value:+.1f}{unit}" if unit == " ms" else f"{value:.1f}{unit}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], first: bool = False) -> str:
    """Return a table; ``first`` sets its first row off."""
    titles = "".join(f"<th>{_text(h)}</th>" for h in head)
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="first"' if first and number == 0 else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{_text(c)}</td>' for c in row)}</tr>")
    body = "".join(lines)
    return _framed(titles, body)


def _framed(titles: str, body: str) -> str:
    """Return a table of finished HTML rows; where it is too wide, it alone is scrolled."""
    head = f"<thead><tr>{titles}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _image(png: bytes, what: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{_text(what)}" src="data:image/png;base64,{data}">'


def page(title: str, body: str) -> str:
    """Return a whole HTML page that loads nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def report(evaluation: Evaluation, scores: dict[str, Any]) -> str:
    """Return the report as HTML.

    Args:
        evaluation: the tracks.
        scores: the content of ``scores.json``.
    """
    title = f"{scores['model']['name']} on {scores['data']['name']}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        _introduction(scores),
        "<h2>Scores</h2>",
        _headline(scores),
        _levels(scores),
        *([_genres(scores)] if scores["genres"] else []),
        *_pictures(evaluation),
        *_worst(evaluation),
        _skipped(scores),
        _made(scores),
    ]
    return page(title, "\n".join(parts))


def _introduction(scores: dict[str, Any]) -> str:
    data = scores["data"]
    style = ' class="warn"' if data["seen_in_training"] else ""
    skipped = f", {len(data['skipped'])} more were skipped" if data["skipped"] else ""
    return (
        f"<p{style}>{_text(data['remark'])}. {data['tracks']} tracks, "
        f"{data['seconds'] / 60:.0f} min{skipped}.</p>"
        "<p>Live path: blocks of audio in, events out, strictly causal. Beats count from 5 s on "
        "and are right within 70 ms. <em>Emitted F</em> scores the moments at which beats were "
        "reported in place of the times they state. Means over tracks; latency (reported minus "
        "annotated time of the beats found; negative is early) and time to lock are medians.</p>"
    )


def _headline(scores: dict[str, Any]) -> str:
    peak, dbn = scores["peak_picking"], scores["not_live"]["dbn_offline"]
    kinds = [("live", scores["live"]), ("peak picking, causal, 20 ms later", peak)]
    if dbn:
        kinds.append(("NOT LIVE: madmom's DBN, sees the whole piece", dbn))
    rows = [[name, *(show(v.get(k), u) for k, _, u in HEADLINE)] for name, v in kinds]
    chosen = peak["thresholds"]
    return (
        _table(["", *(t for _, t, _ in HEADLINE)], rows, first=True)
        + f"<p><small>95 % interval of the live beat F (bootstrap over tracks): "
        f"{_interval(scores)}. Peak picking: thresholds {chosen['beat']} for beats and "
        f"{chosen['downbeat']} for downbeats ({_text(chosen['origin'])}).</small></p>"
    )


def _levels(scores: dict[str, Any]) -> str:
    live = scores["live"]
    rows = [
        ["tracks", *(f"{live['levels'][k]:.1%}" for k in LEVELS), ""],
        ["time", *(f"{live[f'time_{k}']:.1%}" for k in TIME_LEVELS)],
    ]
    return (
        "<h2>Metrical level</h2>"
        + _table(["share of", *(LEVEL_WORDS[k] for k in TIME_LEVELS)], rows)
        + f"<p>{live['never_locked']} of {scores['data']['tracks']} tracks never locked. "
        f"{show(live['beats_outside'])} beats a track were reported outside the annotated part.</p>"
    )


def _genres(scores: dict[str, Any]) -> str:
    chosen = [(k, t, u) for k, t, u in HEADLINE if k in SHORT]
    rows = [
        [name, str(v["tracks"]), *(show(v.get(k), u) for k, _, u in chosen)]
        for name, v in scores["genres"].items()
    ]
    return "<h2>Genres</h2>" + _table(["genre", "tracks", *(t for _, t, _ in chosen)], rows)


def _pictures(evaluation: Evaluation) -> list[str]:
    tracks = list(evaluation.tracks.values())
    live = evaluation.live()
    errors = np.concatenate([found_errors(t.reference, t.heard.events) for t in tracks])
    annotated, tracked, waits = (
        np.array([getattr(r, k) for r in live]) for k in ("annotated_bpm", "tempo_bpm", "lock_s")
    )
    row = mean_row([t.row for t in tracks])
    return [
        "<h2>When beats are reported</h2>",
        _image(pictures.error_histogram(errors), "histogram of reported minus annotated time"),
        "<h2>Tempo</h2>",
        _image(pictures.tempo_scatter(annotated, tracked), "annotated against reported tempo"),
        "<h2>Time to lock</h2><p>To the first of four annotated beats in a row that were all "
        "found; nothing is trimmed here.</p>",
        _image(pictures.lock_curve(waits), "share of tracks locked over time"),
        "<h2>Peak picking at every pair of thresholds</h2>"
        "<p>Scores on the evaluated tracks. The pair in use (white) was not chosen on them.</p>",
        _image(pictures.threshold_map(row, evaluation.choice), "F-measure over the thresholds"),
    ]


def _worst(evaluation: Evaluation) -> list[str]:
    ranked = sorted(evaluation.tracks.items(), key=lambda item: item[1].live.beat_f)
    rows = [
        [n, show(t.live.beat_f), show(t.live.amlt), LEVEL_WORDS[t.live.level],
         f"{t.live.annotated_bpm:.0f}", "-" if np.isnan(t.live.tempo_bpm) else
         f"{t.live.tempo_bpm:.0f}", show(t.dbn.beat_f if t.dbn else None)]
        for n, t in ranked[:LISTED]
    ]  # fmt: skip
    head = ["track", "beat F", "AMLt", "level", "annotated bpm", "reported bpm", "DBN F, not live"]
    parts = ["<h2>Worst tracks</h2>", _table(head, rows)]
    for name, track in ranked[:WORST]:
        parts.append(f"<h3>{_text(name)}: beat F {show(track.live.beat_f)}</h3>")
        parts.append(_image(pictures.excerpt(track), f"activations and beats of {name}"))
    return parts


def _skipped(scores: dict[str, Any]) -> str:
    skipped = scores["data"]["skipped"]
    if not skipped:
        return ""
    lines = "".join(f"<li>{_text(name)}: {_text(why)}</li>" for name, why in skipped.items())
    return f"<h2>Skipped tracks</h2><ul>{lines}</ul>"


def _made(scores: dict[str, Any]) -> str:
    made = scores["made"]
    versions = ", ".join(f"{k} {v}" for k, v in made["versions"].items())
    return (
        f"<h2>How this was made</h2><p><code>{_text(made['command'])}</code></p>"
        f"<p><small>{_text(made['finished'])}, {made['seconds']:.0f} s on "
        f"{_text(made['machine'])}, Python {_text(made['python'])}, {_text(versions)}. Model file "
        f"{scores['model']['sha256'][:16]}. scores.json, tracks.csv and thresholds.json hold all "
        "numbers.</small></p>"
    )


def comparison(results: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """Return an HTML page that sets several evaluations side by side; each links to its report."""
    rows = "".join(
        f'<tr><td><a href="{_text(folder.name)}/report.html">{_text(s["model"]["name"])}</a></td>'
        + "".join(f"<td>{_text(c)}</td>" for c in _cells(s))
        + "</tr>"
        for folder, s in results
    )
    titles = "".join(f"<th>{_text(t)}</th>" for t in _titles())
    name = f"Comparison on {results[0][1]['data']['name']}"
    return page(name, f"<h1>{_text(name)}</h1>{_framed(titles, rows)}")


def _titles() -> list[str]:
    short = [t for k, t, _ in HEADLINE if k in SHORT]
    return ["model", "tracks", "beat F 95 %", *short, "peaks F", "DBN F (not live)"]


def _cells(scores: dict[str, Any]) -> list[str]:
    live, dbn = scores["live"], scores["not_live"]["dbn_offline"] or {}
    return [
        str(scores["data"]["tracks"]),
        _interval(scores),
        *(show(live.get(k), u) for k, _, u in HEADLINE if k in SHORT),
        show(scores["peak_picking"]["beat_f"]),
        show(dbn.get("beat_f")),
    ]


def terminal_table(scores: dict[str, Any]) -> Table:
    """Return the headline of one evaluation for the terminal, narrow enough for 80 columns."""
    title = Text(f"{scores['model']['name']} on {scores['data']['name']}")
    table = Table(title=title, title_justify="left")
    table.add_column(f"{scores['data']['tracks']} tracks")
    columns = [("live", scores["live"]), ("peak picking", scores["peak_picking"])]
    if scores["not_live"]["dbn_offline"]:
        columns.append(("DBN, not live", scores["not_live"]["dbn_offline"]))
    for name, _ in columns:
        table.add_column(name, justify="right")
    for key, words, unit in HEADLINE:
        table.add_row(words, *(show(values.get(key), unit) for _, values in columns))
        if key == "beat_f":
            table.add_row("  95 % interval", _interval(scores))
    return table


def terminal_comparison(results: Sequence[dict[str, Any]]) -> Table:
    """Return what tells several evaluations apart, a row for each."""
    title = Text(f"Live path on {results[0]['data']['name']}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    columns = {"beat_f": "beat F", "beat_f_emitted": "emitted", "cmlt": "CMLt", "amlt": "AMLt",
               "downbeat_f": "down F"}  # fmt: skip
    table.add_column("model", overflow="fold")
    for words in ("95 %", *columns.values()):
        table.add_column(words, justify="right", no_wrap=True)
    for scores in results:
        cells = (show(scores["live"][key]) for key in columns)
        table.add_row(Text(scores["model"]["name"]), _interval(scores), *cells)
    return table


def _interval(scores: dict[str, Any]) -> str:
    low, high = scores["live"]["beat_f_interval"] or (None, None)
    return "-" if low is None else f"{low:.3f}-{high:.3f}"
