"""What the user steers while it runs: from keys, from OSC and from the page, all as one text."""

from __future__ import annotations

import difflib
import math
import threading
import time
from collections import deque
from dataclasses import dataclass

from beattrack.config import ConfigError

MAX_LENGTH = 200  # characters of a command
MAX_WAITING = 64  # commands; more in one block are a fault, or an attack
MAX_METER = 16
MIN_BPM, MAX_BPM = 20.0, 400.0  # of DecoderConfig
# name -> what follows it
KINDS = {
    "tap": "", "double": "", "halve": "", "one": "", "meter": "N", "tempo": "LOW HIGH",
    "delay": "OUTPUT MS", "nudge": "MS", "restart": "",
}  # fmt: skip
AUTO = (0.0, 0.0)  # the tempo range that stands for that of the start
MAX_NUDGE_MS = 50.0


@dataclass(frozen=True)
class Command:
    """One thing that the user asked for; made by `parse`."""

    kind: str  # of KINDS
    # meter: N, 0 for the tracker's own; delay, nudge: MS
    # tempo: LOW, HIGH in bpm; AUTO for the range of the start; none for the present tempo's octave
    numbers: tuple[float, ...] = ()
    output: str = ""  # delay: the output's name


def parse(text: str) -> Command:
    """Read ``tap``, ``double``, ``halve``, ``one``, ``meter 3``, ``restart``, ``nudge -5``,
    ``tempo 80 160`` (or ``keep``, ``auto`` or ``0 0``), or ``delay osc://127.0.0.1:9000 -20``.

    Raises:
        ConfigError: anything else; no text makes it raise another error.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"A command has at most {MAX_LENGTH} characters, not {len(text)}.")
    kind, *words = text.split() or [""]
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" did you mean '{near[0]}'?" if near else f" known: {', '.join(KINDS)}."
        raise ConfigError(f"There is no command {kind[:20]!a};{hint}")
    usage = KINDS[kind].split()
    if kind == "delay" and len(words) > 2:  # names of MIDI ports have spaces
        words = [" ".join(words[:-1]), words[-1]]
    if kind == "tempo" and words in (["keep"], ["auto"]):
        return Command(kind, AUTO if words == ["auto"] else ())
    if len(words) != len(usage):
        more = ", 'tempo keep' or 'tempo auto'" if kind == "tempo" else ""
        raise ConfigError(f"The command is '{' '.join([kind, *usage])}'{more}.")
    if kind == "meter":
        return Command(kind, (_number(kind, words[0], 0, MAX_METER, whole=True),))
    if kind == "nudge":
        return Command(kind, (_number(kind, words[0], -MAX_NUDGE_MS, MAX_NUDGE_MS),))
    if kind == "tempo":
        return Command(kind, _range(words))
    if kind == "delay":
        from beattrack_runtime.live.spec import MAX_DELAY_MS, MIN_DELAY_MS

        return Command(kind, (_number(kind, words[1], MIN_DELAY_MS, MAX_DELAY_MS),), words[0])
    return Command(kind)


def _range(words: list[str]) -> tuple[float, ...]:
    """Read LOW and HIGH in bpm; two zeros stand for the range of the start. Raises ConfigError."""
    if {"0", "0.0"}.issuperset(words):
        return AUTO
    low, high = (_number("tempo", word, MIN_BPM, MAX_BPM) for word in words)
    if high < low:
        raise ConfigError(f"tempo {low:g} {high:g} is the wrong way round: LOW comes first.")
    if high < 1.2 * low:
        raise ConfigError(f"tempo {low:g} {high:g} is too narrow: HIGH is at least 1.2 LOW.")
    return low, high


def _number(kind: str, word: str, low: float, high: float, whole: bool = False) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not low <= value <= high or (whole and value != int(value)):
        what = "a whole number" if whole else "a number"
        raise ConfigError(
            f"{kind} {word[:20]!a} is not possible: it takes {what} of {low:g} to {high:g}."
        )
    return value


class CommandQueue:
    """Commands from any thread, each with the moment at which it came; the show drains it."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, Command]] = deque()
        self.dropped = 0  # commands that found the queue full

    def put(self, command: Command, at_s: float | None = None) -> None:
        """Ask for something; never waits. ``at_s``: when it was meant, monotonic; None: now."""
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self.dropped += 1
            else:
                self._waiting.append((time.monotonic() if at_s is None else at_s, command))

    def drain(self) -> list[tuple[float, Command]]:
        """Return and forget what was asked: (monotonic seconds, command)."""
        with self._lock:
            found = list(self._waiting)
            self._waiting.clear()
        return found
