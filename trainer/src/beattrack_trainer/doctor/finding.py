"""What a check of ``trainer doctor`` found."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, BROKEN = "ok", "note", "broken"  # note: some of the work is impossible


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``note`` (some of the work is impossible) or ``broken``."""

    name: str
    state: str
    fact: str
    remedy: str = ""


def first_line(error: BaseException) -> str:
    """Return an error in one line, bounded."""
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__
