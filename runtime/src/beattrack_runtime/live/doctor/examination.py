"""Every check carried out, and what they found as text or JSON."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict

from beattrack_runtime import __version__
from beattrack_runtime.live.doctor.access import check_container, check_permissions
from beattrack_runtime.live.doctor.computing import (
    check_program,
    check_providers,
    check_speed,
    check_timer,
)
from beattrack_runtime.live.doctor.container import check_network, check_priority
from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding, first_line
from beattrack_runtime.live.doctor.protocols import check_link, check_midi, check_serial
from beattrack_runtime.live.doctor.sound import check_microphones, check_outputs
from beattrack_runtime.quiet import quiet_libraries

CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_program,
    check_providers,
    check_speed,
    check_timer,
    check_microphones,
    check_outputs,
    check_permissions,
    check_container,
    check_priority,
    check_network,
    check_midi,
    check_link,
    check_serial,
)
NEEDED = (check_providers, check_speed, check_microphones)  # --mic cannot work without these


def examine() -> list[Finding]:
    """Carry out every check; return what they found, in the order to be read.

    A check that fails in a way it does not know is itself a finding; none stops the others.
    """
    found: list[Finding] = []
    for check in CHECKS:
        try:
            with quiet_libraries(), _quiet_log():
                found += check()
        except Exception as error:  # whatever a damaged installation throws is the finding
            name = check.__name__.removeprefix("check_").replace("_", " ")
            state = BROKEN if check in NEEDED else NOTE
            found.append(Finding(name, state, first_line(error), "install beattrack anew"))
    return found


def report(found: list[Finding]) -> str:
    """Return the findings as text: a line each, and a remedy below what is not ok."""
    lines = []
    for finding in found:
        lines.append(f"{finding.state:<7}{finding.name:<14}{finding.fact}")
        if finding.state != OK:
            lines.append(f"{'':<21}-> {finding.remedy}")
    return "\n".join(lines)


def report_json(found: list[Finding]) -> str:
    """Return the findings as one line of JSON; ``mic``: whether --mic can work."""
    findings = [asdict(finding) for finding in found]
    mic = can_listen(found)
    return json.dumps({"type": "doctor", "version": __version__, "mic": mic, "findings": findings})


def can_listen(found: list[Finding]) -> bool:
    """Whether --mic can work here."""
    return all(finding.state != BROKEN for finding in found)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the warnings of what is tried out of the report."""
    log = logging.getLogger("beattrack")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before
