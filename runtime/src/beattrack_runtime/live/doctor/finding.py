"""What a check found: of ``beattrack --doctor``, and of ``trainer doctor`` as well."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, BROKEN = "ok", "note", "broken"  # note: the main thing works, another does not


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``note`` (the main thing works, another not) or ``broken``."""

    name: str
    state: str
    fact: str
    remedy: str = ""


def first_line(error: BaseException) -> str:
    """Return an error in one line, bounded and without its full stop."""
    return str(error).strip().partition("\n")[0][:160].rstrip(".") or type(error).__name__
