"""What the user writes for a live output: ``osc://127.0.0.1:9000?delay=-20``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from beattrack_runtime.errors import MisuseError

MIN_DELAY_MS, MAX_DELAY_MS = -250.0, 2000.0
OSC_PREFIX = "/beattrack"  # of the addresses of messages, unless another is given
MAX_LENGTH = 500  # characters of one specification


@dataclass(frozen=True)
class Kind:
    """One scheme: what its address is and which keys it takes beside ``delay``."""

    example: str
    address: str  # "host" (and port), "path", "file" (a path, or nothing), "name" or "none"
    port: int | None = None  # taken where none is given; None: it must be given
    host: str | None = None  # taken where none is given; None: it must be given
    keys: dict[str, str] = field(default_factory=dict)  # key -> "int", "float", "yes" or "text"


KINDS: dict[str, Kind] = {
    "jsonl": Kind("jsonl:///path/to/file", "file"),
    "osc": Kind("osc://127.0.0.1:9000", "host", keys={"prefix": "text"}),
    "midi": Kind(
        "midi://NAME", "name",
        keys={
            "channel": "int", "note": "int", "one": "int", "clock": "yes", "notes": "yes",
            "transport": "yes", "free": "yes",
        },
    ),
    "link": Kind("link://", "none", keys={"quantum": "int", "startstop": "yes"}),
    "serial": Kind("serial:///dev/ttyUSB0", "path", keys={"baud": "int"}),
    "os2l": Kind("os2l://127.0.0.1:9996", "host", 9996, "127.0.0.1"),
    "click": Kind("click://DEVICE", "name", keys={"volume": "float"}),
    "web": Kind(
        "web://127.0.0.1:8080", "host", 8080, "127.0.0.1", keys={"token": "text", "name": "text"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class OutputSpec:
    """One live output as asked for."""

    text: str  # as written, without its keys: how the output is named
    scheme: str  # of KINDS
    host: str = ""
    port: int = 0
    place: str = ""  # a device's path or a port's name; empty: the scheme's own default
    delay_ms: float = 0.0
    options: dict[str, int | float | bool | str] = field(default_factory=dict)

    @property
    def on_stdout(self) -> bool:
        """Whether it writes to stdout."""
        return self.scheme == "jsonl" and not self.place

    def with_delay(self, delay_ms: float) -> str:
        """Return how to write this output, all its keys included, with another delay."""
        keys = [f"delay={delay_ms:g}"]
        for key, value in self.options.items():
            text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
            keys.append(f"{key}={quote(text)}")
        return f"{self.text}?{'&'.join(keys)}"


def is_live(text: str) -> bool:
    """Whether an ``--output`` means a live output rather than a format of stdout."""
    return ":" in text


def parse_output(text: str) -> OutputSpec:
    """Read one specification. Raises MisuseError, which names what is allowed."""
    if len(text) > MAX_LENGTH or not text.isprintable():
        raise MisuseError(f"--output '{text[:40]}...' is not possible: it is too long or no text.")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise MisuseError(f"--output '{text}' lacks '://': write it like {KINDS['osc'].example}.")
    if scheme not in KINDS:
        raise MisuseError(f"--output '{text}': there is no '{scheme}';{_nearest(scheme, KINDS)}")
    kind = KINDS[scheme]
    address, _, query = rest.partition("?")
    host, port, place = _address(text, scheme, kind, address)
    delay_ms, options = _keys(text, kind, query)
    return OutputSpec(f"{scheme}://{address}", scheme, host, port, place, delay_ms, options)


def parse_host(option: str, text: str, scheme: str) -> tuple[str, int]:
    """Read ``scheme://HOST:PORT`` as other options take it. Raises MisuseError."""
    found, separator, address = text.partition("://")
    if found != scheme or not separator:
        raise MisuseError(f"{option} '{text}' is not possible: write it like {scheme}://HOST:PORT.")
    return _host_and_port(f"{option} '{text}'", f"{scheme}://127.0.0.1:9001", address, None, None)


def _address(text: str, scheme: str, kind: Kind, address: str) -> tuple[str, int, str]:
    given = f"--output '{text}'"
    if kind.address == "host":
        host, port = _host_and_port(given, kind.example, address, kind.host, kind.port)
        return host, port, ""
    place = unquote(address)
    if kind.address == "none" and place:
        raise MisuseError(f"{given} takes no address: write {kind.example}.")
    if kind.address == "file" and place and (place[0] != "/" or "\0" in place):
        raise MisuseError(f"{given} must name a file by its whole path: write {kind.example}.")
    if kind.address == "path" and not place.startswith("/"):
        raise MisuseError(f"{given} must name a device: write it like {kind.example}.")
    return "", 0, place


def _host_and_port(
    given: str, example: str, address: str, host: str | None, port: int | None
) -> tuple[str, int]:
    try:
        parts = urlsplit("//" + address)
        found_host, found_port = parts.hostname or host, parts.port or port
    except ValueError:
        found_host = found_port = None
        parts = None
    if parts is None or parts.username or parts.path.strip("/") or not found_host or not found_port:
        raise MisuseError(f"{given} must name a host and a port: write it like {example}.")
    return found_host, found_port


def _keys(text: str, kind: Kind, query: str) -> tuple[float, dict[str, int | float | bool | str]]:
    delay_ms, options = 0.0, {}
    known = {"delay": "float", **kind.keys}
    seen = set()
    for part in query.split("&") if query else []:
        key, _, value = part.partition("=")
        if key not in known:
            raise MisuseError(f"--output '{text}': there is no key '{key}';{_nearest(key, known)}")
        if key in seen:
            raise MisuseError(f"--output '{text}': '{key}' is given twice.")
        seen.add(key)
        read = _value(text, key, unquote(value), known[key])
        if key == "delay":
            delay_ms = float(read)
        else:
            options[key] = read
    check_delay(delay_ms)
    return delay_ms, options


def check_delay(delay_ms: float) -> None:
    """Refuse a delay out of range. Raises MisuseError."""
    if not MIN_DELAY_MS <= delay_ms <= MAX_DELAY_MS:  # also NaN
        raise MisuseError(
            f"delay={delay_ms:g} is not possible: it must be {MIN_DELAY_MS:g} to "
            f"{MAX_DELAY_MS:g} ms; negative is early."
        )


def _value(text: str, key: str, value: str, kind: str) -> int | float | bool | str:
    words = {"int": "a whole number", "float": "a number", "yes": "yes or no", "text": "a text"}
    try:
        if kind == "int":
            return int(value)
        if kind == "float":
            return float(value)
        if kind == "yes":
            return {"yes": True, "no": False}[value]
        if value:
            return value
    except (ValueError, KeyError):
        pass
    raise MisuseError(f"--output '{text}': {key}='{value}' must be {words[kind]}.")


def _nearest(word: str, known: dict[str, Kind] | dict[str, str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" did you mean '{near[0]}'?" if near else f" known: {', '.join(known)}."
