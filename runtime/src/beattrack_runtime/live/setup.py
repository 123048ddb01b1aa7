"""From what the command line says of live outputs to a running show."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from beattrack.config import ConfigError, DecoderConfig
from beattrack_runtime.errors import MisuseError
from beattrack_runtime.live.controls import MAX_METER, parse
from beattrack_runtime.live.spec import OSC_PREFIX, OutputSpec, is_live, parse_host, parse_output

if TYPE_CHECKING:
    from beattrack_runtime.live.show import Control, Show


@dataclass(frozen=True)
class ShowRequest:
    """What is to be driven, and how it is steered; made by `read_request`."""

    outputs: tuple[OutputSpec, ...] = ()
    control: tuple[str, int] | None = None  # host and port of the OSC control
    meter: int | None = None  # beats per bar
    tempo_range: tuple[float, float] | None = None  # bpm

    def decoder(self, config: DecoderConfig) -> DecoderConfig:
        """Return the filter's settings with what the user knows of the music.

        Raises:
            MisuseError: the filter cannot do it.
        """
        changes: dict[str, object] = {}
        if self.meter is not None:
            changes["beats_per_bar"] = (self.meter,)
        if self.tempo_range is not None:
            changes["min_bpm"], changes["max_bpm"] = self.tempo_range
        try:
            return dataclasses.replace(config, **changes)  # type: ignore[arg-type]
        except ConfigError as error:
            raise MisuseError(f"--meter or --tempo-range does not fit: {error}") from None


def read_request(
    outputs: list[str], control: str | None, meter: int | None, tempo_range: str | None
) -> ShowRequest:
    """Read the options; ``outputs`` are the live ones. Raises MisuseError."""
    specs = _distinct([parse_output(text) for text in outputs])
    if meter is not None and not 1 <= meter <= MAX_METER:
        raise MisuseError(f"--meter {meter} is not possible: it must be 1 to {MAX_METER}.")
    low_high = None if tempo_range is None else _read_range(tempo_range)
    where = None if control is None else parse_host("--control", control, "osc")
    return ShowRequest(specs, where, meter, low_high)


def _distinct(specs: list[OutputSpec]) -> tuple[OutputSpec, ...]:
    """Return the outputs under names of their own. Raises MisuseError where one is given twice.

    At one OSC address there may be several prefixes, which then belong to the names.
    """
    named: list[OutputSpec] = []
    for spec in specs:
        prefix = spec.options.get("prefix", OSC_PREFIX)
        if prefix != OSC_PREFIX and sum(other.text == spec.text for other in specs) > 1:
            spec = dataclasses.replace(spec, text=f"{spec.text}?prefix={prefix}")
        if any(spec.text == other.text for other in named):
            raise MisuseError(f"--output '{spec.text}' is given twice.")
        named.append(spec)
    return tuple(named)


def _read_range(text: str) -> tuple[float, float]:
    """Read ``80-160``. Raises MisuseError."""
    words = text.replace("-", " ").split()
    if len(words) != 2:
        raise MisuseError(f"--tempo-range '{text}' must be LOW-HIGH in bpm, such as 80-160.")
    try:
        low, high = parse(" ".join(["tempo", *words])).numbers
    except ConfigError as error:
        raise MisuseError(f"--tempo-range '{text}': {error}") from None
    return low, high


def split_outputs(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return the formats of stdout and the live outputs among what ``--output`` was given."""
    return [t for t in texts if not is_live(t)], [t for t in texts if is_live(t)]


def open_show(request: ShowRequest) -> Show:
    """Start all outputs and controls. Raises BeattrackError and MisuseError."""
    from beattrack_runtime.live.controls import CommandQueue
    from beattrack_runtime.live.keys import TerminalKeys
    from beattrack_runtime.live.outputs import make_output
    from beattrack_runtime.live.show import Show

    commands = CommandQueue()
    try:
        outputs = [(make_output(spec, commands.put), spec.delay_ms) for spec in request.outputs]
    except ConfigError as error:
        raise MisuseError(f"--output: {error}") from None
    controls: list[Control] = [TerminalKeys(commands.put)]
    if request.control is not None:
        from beattrack_runtime.live.osc_control import OscControl

        controls.append(OscControl(request.control, commands.put))
    return Show(outputs, commands, controls)
