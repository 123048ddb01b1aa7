"""`beattrack --calibrate`: plays clicks and listens, has the user tap along, proposes delays."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError
from beattrack_runtime.errors import MisuseError, SourceError
from beattrack_runtime.live.clock.ticks import TICKS, ClockState, ClockStateChange, Tick
from beattrack_runtime.live.delays import LONGEST_S, Delay, measure_round_trip, measure_taps
from beattrack_runtime.live.delivery import Delivery
from beattrack_runtime.live.outputs import make_output
from beattrack_runtime.live.spec import MAX_DELAY_MS, MIN_DELAY_MS, OutputSpec, parse_output
from beattrack_runtime.live.walltime import StreamTime
from beattrack_runtime.microphone import MicSource
from beattrack_runtime.outputs.click import DOWNBEAT_HZ, make_click

if TYPE_CHECKING:
    from beattrack_runtime.sources import Source

CLICK = "click://"
# s between clicks, uneven: a round trip longer than one of them is still told.
GAPS_S = (0.55, 0.61, 0.47, 0.70, 0.52, 0.66, 0.50, 0.73, 0.58, 0.49, 0.64)
QUIET_S = 1.0  # of recording before the first click
OPEN_S = 5.0  # within which an output must be open
TAP_BPM, TAP_BEATS = 100.0, 28
TAP_LEAD_S = 1.0  # between the key that starts and the first beat

_log = logging.getLogger("beattrack")


def calibrate(device: str | None, specs: tuple[OutputSpec, ...]) -> int:
    """Measure what the user asked for, print it, and return the exit code.

    Args:
        device: input to listen with; None: the default.
        specs: the loudspeaker (``click://``; the default one if none is given), and at most one
            other output, which is then tapped along with.

    Raises:
        MisuseError: other outputs, or no terminal to tap at.
        SourceError: the input or the loudspeaker does not work, or is not heard.
    """
    clicks = [spec for spec in specs if spec.scheme == "click"] or [parse_output(CLICK)]
    lamps = [spec for spec in specs if spec.scheme != "click"]
    if len(clicks) > 1 or len(lamps) > 1:
        raise MisuseError("--calibrate takes one click:// and one other --output at most.")
    if lamps and not os.isatty(0):
        raise MisuseError(f"To tap along with {lamps[0].text} --calibrate needs a terminal.")
    try:
        trip: Delay | None = _listen(device, clicks[0])
    except (ConfigError, SourceError) as error:
        if not lamps:
            raise SourceError(str(error)) from None
        _log.warning("%s The clicks' own delay stays unknown.", error)
        trip = None
    if trip is not None:
        print(f"{clicks[0].text}: round trip {trip}, {trip.used} of {trip.of} clicks agree")
        _propose(clicks[0], -trip.delay_s)
    if lamps:
        _tap_along(lamps[0], clicks[0], trip)
    return 0


def _listen(device: str | None, spec: OutputSpec) -> Delay:
    """Play clicks and listen; raises ConfigError and SourceError."""
    with contextlib.closing(MicSource(device)) as source, _started(spec) as output:
        _log.info("Listening to '%s' while %s clicks, for %.0f s; keep quiet.",
                  source.name, spec.text, sum(GAPS_S) + QUIET_S + LONGEST_S)  # fmt: skip
        recorded, asked = _record(source, output)
        click = make_click(DOWNBEAT_HZ, source.sample_rate, 1.0)
        return measure_round_trip(recorded, source.sample_rate, click, asked)


def _record(source: Source, output: Delivery) -> tuple[NDArray[np.float32], list[float]]:
    """Return the recording, mono, and when each click was asked for, seconds of it."""
    stream = StreamTime()
    parts: list[NDArray[np.float32]] = []
    heard = 0
    asked: list[float] = []
    end = float("inf")
    for block in source.blocks():
        now = time.monotonic()
        if len(block):
            heard += len(block)
            parts.append(block.mean(axis=1, dtype=np.float32))
            stream.heard(heard / source.sample_rate, now)
            if not asked and heard > QUIET_S * source.sample_rate:
                asked = list(now + 0.3 + np.cumsum((0.0, *GAPS_S)))
                end = asked[-1] + LONGEST_S + 0.3
                for number, at in enumerate(asked):
                    output.put(Tick(at, number, 0, 1, 4, 100.0, 1.0), at)
        if now > end or (not asked and source.note):
            break
    if source.note or source.overruns:
        raise SourceError(f"'{source.name}' lost sound on the way: try again.")
    return np.concatenate(parts), [stream.stream(at) or 0.0 for at in asked]


def _tap_along(lamp: OutputSpec, click: OutputSpec, trip: Delay | None) -> None:
    """Measure a lamp against the clicks by the user's taps, and propose its delay."""
    print(
        f"Tap any key on every beat, {TAP_BEATS} beats at {TAP_BPM:.0f} bpm: "
        "first to the clicks, then to the light."
    )
    heard: Delay | None
    try:
        heard = _taps(click, "clicks")
    except SourceError as error:
        _log.warning("%s So it goes without clicks, and is less exact.", error)
        heard = None
    seen = _taps(lamp, "light")
    if heard is None:
        print(f"{lamp.text}: seen {seen} after it was asked for, by taps alone: people tap early")
        _propose(lamp, -seen.delay_s)
        return
    later = Delay(seen.delay_s - heard.delay_s, float(np.hypot(seen.error_s, heard.error_s)),
                  seen.used, seen.of)  # fmt: skip
    print(f"{lamp.text}: seen {later} after the clicks are heard")
    if trip is None:
        print(f"  give it the delay of {click.text}, {-1e3 * later.delay_s:+.0f} ms")
    else:
        _propose(lamp, -trip.delay_s - later.delay_s)


def _taps(spec: OutputSpec, what: str) -> Delay:
    """Drive one output steadily and measure the taps; again while they are too poor."""
    with _started(spec) as output, _keys() as key:
        while True:
            print(f"Press a key when you are ready for the {what}.", flush=True)
            while key(0.5) is None:
                pass
            taps, beats = _one_round(output, key)
            try:
                return measure_taps(taps, beats)
            except ConfigError as error:
                print(error)


def _one_round(output: Delivery, key: Keys) -> tuple[list[float], list[float]]:
    """Return when keys were pressed and when beats were asked for, monotonic seconds."""
    period = 60 / TAP_BPM
    start = time.monotonic() + TAP_LEAD_S
    beats = [start + k * period for k in range(TAP_BEATS)]
    output.put(ClockStateChange(ClockState.LOCKED, start, TAP_BPM, 1.0), start - TAP_LEAD_S / 2)
    taps: list[float] = []
    given = 0  # ticks; only the near future, as in a show
    while (now := time.monotonic()) < beats[-1] + period:
        while given < TAP_BEATS * TICKS and start + given * period / TICKS < now + 0.5:
            beat, tick = divmod(given, TICKS)
            at = start + given * period / TICKS
            output.put(Tick(at, beat, tick, beat % 4 + 1, 4, TAP_BPM, 1.0, not given), at)
            given += 1
        pressed = key(0.05)
        if pressed is not None:
            taps.append(pressed)
    return taps, beats


def _propose(spec: OutputSpec, delay_s: float) -> None:
    """Print the delay to use, within what is possible."""
    wanted = delay_s * 1e3
    delay = min(MAX_DELAY_MS, max(MIN_DELAY_MS, wanted))
    print(f"  use --output '{spec.with_delay(round(delay))}'")
    if delay != wanted:
        print(f"  ({wanted:.0f} ms would be right, which is more than can be made up for)")


@contextlib.contextmanager
def _started(spec: OutputSpec) -> Iterator[Delivery]:
    """Open an output for the while. Raises SourceError."""
    output = Delivery(make_output(spec, lambda command, at_s: None), 0.0)
    output.start()
    try:
        end = time.monotonic() + OPEN_S
        while output.health().state != "open":
            if output.health().state == "broken" or time.monotonic() > end:
                raise SourceError(f"{spec.text} cannot be opened: --doctor says more.")
            time.sleep(0.02)
        yield output
    finally:
        output.stop()
        output.join()


class Keys:
    """Keys of a terminal, each at the moment at which it was pressed."""

    def __init__(self, file: int) -> None:
        """Read ``file``, a terminal that gives keys at once."""
        self._file = file

    def __call__(self, seconds: float) -> float | None:
        """Wait so long at most; return when a key was pressed, monotonic seconds."""
        if not select.select([self._file], [], [], seconds)[0]:
            return None
        at = time.monotonic()
        if not os.read(self._file, 64):
            raise SourceError("The terminal is gone.")
        return at


@contextlib.contextmanager
def _keys() -> Iterator[Keys]:
    """Have the terminal give keys at once and unseen; Ctrl-C still ends."""
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        tty.setcbreak(file)
        yield Keys(file)
    finally:
        termios.tcsetattr(file, termios.TCSAFLUSH, before)
