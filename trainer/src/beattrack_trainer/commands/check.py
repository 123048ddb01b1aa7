"""``trainer check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from beattrack.config import ConfigError
from beattrack_runtime.errors import printable
from beattrack_runtime.outputs.pending import LineFile
from beattrack_trainer.commands.common import File, Jobs, Words, console, results
from beattrack_trainer.config import load_settings
from beattrack_trainer.say import say

if TYPE_CHECKING:
    from rich.table import Table

    from beattrack_trainer.data.reports import SetReport


def check(
    settings: Words = None,
    config: File = None,
    jobs: Jobs = 1,
    json_file: Annotated[
        Optional[Path], typer.Option("--json", help="Write all findings to this file.")
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Decode all audio and test where the beats fall on it.")
    ] = False,
    write_aligned: Annotated[
        Optional[Path],
        typer.Option(help="Empty folder for annotations that lie on the audio; implies --align."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for each finding.")] = False,
) -> None:
    """Say what is missing or odd in data sets before they are trained on.

    Tracks whose length disagrees with their annotation are tested for the offset that would align
    it; with --align all are. The exit code is 1 if anything found would harm training.
    docs/datasets.md explains each finding.

    Examples:

        trainer check data=harmonix

        trainer check data=[harmonix,gtzan] --json check.json --jobs 4

        trainer check data=harmonix --write-aligned data/harmonix/beats_aligned
    """
    from beattrack_trainer.data import check as checking
    from beattrack_trainer.data.folders import open_data_sets

    sets = open_data_sets(load_settings(settings or [], config).data)
    if write_aligned:
        if len(sets) > 1:
            raise ConfigError("--write-aligned takes one data set at a time.")
        checking.require_empty(write_aligned)
    # Opened first: that it cannot be written must be known before hours of decoding.
    file = LineFile(json_file) if json_file else None
    try:
        reports = [checking.check(d, jobs, align or bool(write_aligned), console) for d in sets]
        for report in reports:
            _show(report, verbose)
        if file:
            _write(file, reports)
    except BaseException:
        if file:
            file.abandon()
        raise
    if write_aligned:
        counts = checking.write_aligned(sets[0], reports[0], write_aligned)
        text = "aligned {}, left {} as they are, left out {} whose place is not sure"
        say(console, f"{write_aligned}: {text.format(*counts)}")
    if any(r.count("error") for r in reports):
        raise typer.Exit(1)


def _show(report: SetReport, verbose: bool) -> None:
    results.print(_table(report))
    for finding in report.findings if verbose else ():
        name = f"{finding.track}: " if finding.track else ""
        say(results, f"{finding.level} {finding.kind}: {name}{finding.message}")


def _write(file: LineFile, reports: list[SetReport]) -> None:
    """Write all findings as JSON; of a name that is no text, the bytes are spelled out."""
    from beattrack_trainer.data.reports import report_json

    text = json.dumps(report_json(reports), indent=2, ensure_ascii=False)
    file.write(text.encode("utf-8", "backslashreplace").decode())
    file.finish()


def _table(report: SetReport) -> Table | str:
    """Return a row for each kind of finding, errors first; a line where nothing was found."""
    from rich.markup import escape
    from rich.table import Table

    from beattrack_trainer.data.findings import KINDS

    hours = sum(t.seconds for t in report.tracks.values()) / 3600
    title = escape(
        printable(f"{report.name}: {_counted(len(report.tracks), 'track')}, {hours:.1f} h")
    )
    if not report.findings:
        return f"{title}: nothing found."
    verdict = ", ".join(_counted(report.count(level), level) for level in ("error", "warning"))
    table = Table(title=title, caption=verdict)
    for column in ("level", "finding", "count", "such as"):
        table.add_column(column, justify="right" if column == "count" else "left")
    for kind, level in KINDS.items():
        found = [f for f in report.findings if f.kind == kind]
        if found:
            first = f"{found[0].track}: " if found[0].track else ""
            example = escape(printable(first + found[0].message))
            style = "red" if level == "error" else None
            table.add_row(level, kind, str(len(found)), example, style=style)
    return table


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
