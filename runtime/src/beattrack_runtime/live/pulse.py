"""What an output does by itself while the clock gives no ticks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Pulse:
    """A moment that an output asked for itself."""


@runtime_checkable
class Pulsing(Protocol):
    """An output that may ask to be sent a `Pulse`; only its own thread sets and reads when."""

    pulse_s: float  # when the next one is wanted, monotonic seconds; inf: none is
