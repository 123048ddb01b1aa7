"""What the command line asks for, and what of it makes no sense."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from beattrack_runtime.errors import MisuseError

if TYPE_CHECKING:
    from beattrack_runtime.live.setup import ShowRequest


class Format(str, Enum):
    """How events are written to stdout."""

    text = "text"
    jsonl = "jsonl"
    beats = "beats"
    none = "none"


def read_format(names: list[str], taken: bool = False) -> Format:
    """Return how stdout is written.

    Args:
        names: what the user asked for; nothing means text.
        taken: a live output writes to stdout: nothing else can.

    Raises:
        MisuseError: there is no such format, or more than one for stdout.
    """
    if len(set(names)) > 1:
        raise MisuseError(f"--output {names[0]} and {names[1]}: stdout takes one of them.")
    name = names[0] if names else (Format.none if taken else Format.text).value
    known = [form.value for form in Format]
    if name not in known:
        raise MisuseError(
            f"--output '{name}' is not possible: it is {', '.join(known)}, or an address such as "
            "osc://127.0.0.1:9000."
        )
    if taken and name != Format.none.value:
        raise MisuseError(
            f"--output {name} and jsonl://: stdout takes one of them; jsonl:///PATH writes to a "
            "file or a pipe."
        )
    return Format(name)


@dataclass(frozen=True)
class LiveInput:
    """Where live sound is to come from, if anywhere; None: not given."""

    mic: bool = False
    device: str | None = None
    stdin: bool = False
    listen: str | None = None  # tcp://HOST:PORT
    rate: int | None = None  # Hz; this and the next two say what raw PCM is
    channels: int | None = None
    pcm_format: str | None = None
    channel: int | None = None  # from 1

    @property
    def kind(self) -> str:
        """The option that asks for live sound, the first of several; empty if there is none."""
        return (
            "--mic"
            if self.mic
            else "--stdin"
            if self.stdin
            else "--listen" * (self.listen is not None)
        )


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    files: list[Path]
    live: LiveInput
    wanted: dict[str, str]  # kind of result -> where, as the user wrote it
    realtime: bool
    format: Format
    model: Path | None
    show: ShowRequest  # what is driven live

    @property
    def inputs(self) -> list[Path]:
        """The files that must not be written to; some may not exist."""
        return [*self.files, *([self.model] if self.model else [])]

    @property
    def is_live(self) -> bool:
        """Whether sound or outputs go by the clock, so that nothing may wait for a reader."""
        live = self.live
        return self.realtime or live.mic or live.listen is not None or bool(self.show.outputs)


def check(request: Request) -> None:
    """Refuse what makes no sense. Raises MisuseError."""
    live = request.live
    given = ["--file"] * bool(request.files) + ["--mic"] * live.mic
    given += ["--stdin"] * live.stdin + ["--listen"] * (live.listen is not None)
    if len(given) > 1:
        raise MisuseError(f"Give either {given[0]} or {given[1]}, not both.")
    if not given:
        raise MisuseError("Give --file SONG or --mic; --help shows examples.")
    raw = live.stdin or live.listen is not None
    for option, value, fits, owner in (
        ("--device", live.device, live.mic, "--mic"),
        ("--rate", live.rate, raw, "--stdin and --listen"),
        ("--channels", live.channels, raw, "--stdin and --listen"),
        ("--pcm-format", live.pcm_format, raw, "--stdin and --listen"),
        ("--channel", live.channel, live.kind, "live sound"),
    ):
        if value is not None and not fits:
            raise MisuseError(f"{option} belongs to {owner}.")
    if request.realtime and live.kind and not live.stdin:
        raise MisuseError("--realtime belongs to --file and --stdin: a microphone needs none.")
    show = request.show
    if show.outputs and request.files and not request.realtime:
        raise MisuseError(
            f"--output {show.outputs[0].text} is live: give --realtime with --file, or --mic."
        )
    for spec in show.outputs:
        path = spec.place if spec.scheme == "jsonl" else ""
        if os.path.exists(path) and any(p.exists() and p.samefile(path) for p in request.inputs):
            raise MisuseError(f"--output {spec.text} would write into an input.")
    if show.control is not None and not show.outputs:
        raise MisuseError("--control steers live outputs: give one, as --output osc://HOST:PORT.")
    if request.model is not None and not request.model.is_file():
        raise MisuseError(f"There is no model file '{request.model}'.")
