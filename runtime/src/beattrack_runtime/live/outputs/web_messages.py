"""What server and page say to each other: versioned JSON, described in docs/live.md."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.output import Due, Status

VERSION = 1
MAX_BYTES = 1024  # of a message to the server


class MessageError(ValueError):
    """A message that cannot be taken; the text is one sentence for whoever sent it."""


@dataclass(frozen=True)
class Ping:
    """The page asks what the server's clock says."""

    id: int


@dataclass(frozen=True)
class Steer:
    """The page steers: a line as `controls.parse` takes it, and when it was meant."""

    line: str
    at: float | None  # time.monotonic() seconds of the press


def encode(kind: str, **values: Any) -> str:
    """Return one message; numbers that JSON does not have become null."""
    return json.dumps({"v": VERSION, "type": kind, **plain(values)}, allow_nan=False)


def encode_due(due: Due) -> str:
    """Return the message of one event of the clock."""
    what = due.what
    if isinstance(what, Status):
        frames = [
            [due.at + time_s - what.stream_s, beat, downbeat]
            for time_s, beat, downbeat in what.frames
        ]
        return encode("status", **{**asdict(what), "at": due.at, "frames": frames})
    assert isinstance(what, (Tick, ClockStateChange))
    kind, values = event_fields(what)
    return encode(kind, at=due.at, **values)


def event_fields(what: Tick | ClockStateChange) -> tuple[str, dict[str, Any]]:
    """Return how an event of the clock is called and what is told of it beside its moment."""
    values = asdict(what)
    del values["time_s"]  # stream time, which only we know
    if isinstance(what, ClockStateChange):
        return "state", values
    del values["tick"]
    return "beat", values


def decode(message: str | bytes) -> Ping | Steer:
    """Read a message of a page. Raises MessageError: nothing that comes in is trusted."""
    if not isinstance(message, str):
        raise MessageError("Messages are text, not bytes.")
    try:
        values = json.loads(message)
    except (ValueError, RecursionError):
        raise MessageError("A message is one object of JSON.") from None
    if not isinstance(values, dict):
        raise MessageError("A message is one object of JSON.")
    if values.get("v") != VERSION:
        raise MessageError(f"This server speaks version {VERSION} of the messages.")
    if values.get("type") == "ping":
        number = values.get("id")
        if type(number) is not int or not 0 <= number < 2**53:
            raise MessageError("The id of a ping is a whole number from 0 to 2^53.")
        return Ping(number)
    if values.get("type") == "command":
        line, at = values.get("command"), values.get("at")
        if not isinstance(line, str):
            raise MessageError("A command is a line of text.")
        if at is not None and (type(at) not in (int, float) or not math.isfinite(at)):
            raise MessageError("The time of a command is a finite number of seconds.")
        return Steer(line, None if at is None else float(at))
    raise MessageError("The type of a message is 'ping' or 'command'.")


def plain(value: Any) -> Any:
    """Return ``value`` in types that JSON has; times keep 10 us, which is finer than any screen."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
