"""What a check of ``beattrack --doctor`` found."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, BROKEN = "ok", "note", "broken"  # note: --mic works, something else does not


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``note`` (--mic works, something else not) or ``broken``."""

    name: str
    state: str
    fact: str
    remedy: str = ""


def first_line(error: BaseException) -> str:
    """Return an error in one line, bounded and without its full stop."""
    return str(error).strip().partition("\n")[0][:160].rstrip(".") or type(error).__name__
