"""The live outputs; `open_output` makes the one that a specification asks for.

Each protocol's library is imported only when its output is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from beattrack_runtime.live.controls import Command
from beattrack_runtime.live.output import Output
from beattrack_runtime.live.spec import OutputSpec


def make_output(spec: OutputSpec, put: Callable[[Command, float], None]) -> Output:
    """Return the output, not yet opened.

    Args:
        spec: what the user asked for.
        put: takes the commands that come back from a page, each with when the user gave it,
            monotonic seconds.

    Raises:
        BeattrackError: its library is missing.
        ConfigError: a key's value is out of range.
    """
    if spec.scheme == "jsonl":
        from beattrack_runtime.live.outputs.jsonl import JsonlOutput

        return JsonlOutput(spec)
    if spec.scheme == "osc":
        from beattrack_runtime.live.outputs.osc import OscOutput

        return OscOutput(spec)
    if spec.scheme == "midi":
        from beattrack_runtime.live.outputs.midi import MidiOutput

        return MidiOutput(spec)
    if spec.scheme == "link":
        from beattrack_runtime.live.outputs.link import LinkOutput

        return LinkOutput(spec)
    if spec.scheme == "serial":
        from beattrack_runtime.live.outputs.serial import SerialOutput

        return SerialOutput(spec)
    if spec.scheme == "os2l":
        from beattrack_runtime.live.outputs.os2l import Os2lOutput

        return Os2lOutput(spec)
    if spec.scheme == "click":
        from beattrack_runtime.live.outputs.click import ClickOutput

        return ClickOutput(spec)
    from beattrack_runtime.live.outputs.web import WebOutput

    token, name = (
        None if (value := spec.options.get(key)) is None else str(value)
        for key in ("token", "name")
    )
    return WebOutput((spec.host, spec.port), token, put, name)
