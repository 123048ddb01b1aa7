"""``trainer doctor``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from beattrack_trainer.commands.common import results
from beattrack_trainer.say import say

STYLES = {"ok": "green", "note": "yellow", "broken": "red"}


def doctor(
    brief: Annotated[
        bool, typer.Option("--brief", help="One line: torch, device, NATTEN.")
    ] = False,
) -> None:
    """Say what this machine can do and what to mend; exit code 1 when training cannot work.

    Each line is one check, really carried out: ok, note (training works, something else does
    not) or broken. Below what is not ok stands what to do.

    Example: docker compose run --rm trainer doctor
    """
    from beattrack_runtime.live.doctor.finding import BROKEN, OK
    from beattrack_trainer.doctor.examination import brief as one_line
    from beattrack_trainer.doctor.examination import examine

    if brief:
        say(results, one_line())
        return
    findings = examine()
    for found in findings:
        state = Text(f"{found.state:<7}", style=STYLES[found.state])
        results.print(
            state.append(f"{found.name:<12} {found.fact}", style="default"), soft_wrap=True
        )
        if found.state != OK:
            say(results, f"{'':<20}{found.remedy}")
    if any(f.state == BROKEN for f in findings):
        raise typer.Exit(1)
