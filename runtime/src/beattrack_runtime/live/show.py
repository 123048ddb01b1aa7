"""The running heart: from a source's blocks and the tracker's events to every live output."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from beattrack.config import ConfigError
from beattrack.events import Event
from beattrack_runtime.live.clock.loop import BeatClock
from beattrack_runtime.live.clock.ticks import ClockStateChange, Tick
from beattrack_runtime.live.controls import AUTO, Command, CommandQueue
from beattrack_runtime.live.delivery import Delivery
from beattrack_runtime.live.output import Output, Status
from beattrack_runtime.live.spec import MAX_DELAY_MS, MIN_DELAY_MS
from beattrack_runtime.live.telling import Lamp, outcome, settings
from beattrack_runtime.live.tempo_range import TempoRange
from beattrack_runtime.live.walltime import StreamTime
from beattrack_runtime.view import View

if TYPE_CHECKING:
    from beattrack_runtime.live.health import Health
    from beattrack_runtime.session import LiveTracker
    from beattrack_runtime.sources import Source

LOOKAHEAD_S = 0.06  # ticks are given so long before they sound, and before the earliest output
MAX_GAP_S = 1.5  # audio that does not come for so long: the source gives silence by then
HASTY = 5  # s in a row of audio that came too fast: no gap made up for, but a file through a pipe
STATUS_S = 0.1  # between two statuses
FRAMES = 64  # that one status tells of at most
PRIORITY = 5  # among real-time threads, 1-99: sound servers have more
_SWITCH_S = 0.001  # s for which one Python thread may keep the others waiting

_log = logging.getLogger("beattrack")


class Control(Protocol):
    """Something that puts commands into the show's queue: keys, an OSC port."""

    def start(self) -> None:
        """Begin. Raises BeattrackError."""

    def stop(self) -> None:
        """End."""


class Show:
    """Drives live outputs from one stream after another.

    Made once; for each stream `begin`, then `step` for each block with the events that it made
    known, then `end`. `close` at last.
    """

    def __init__(
        self,
        outputs: Sequence[tuple[Output, float]],
        commands: CommandQueue | None = None,
        controls: Sequence[Control] = (),
    ) -> None:
        """Start the outputs, each given with its delay in ms, and the controls."""
        self.commands = commands or CommandQueue()
        self.deliveries = [Delivery(output, delay) for output, delay in outputs]
        self._controls: list[Control] = []
        self._clock = BeatClock(self._lookahead_s())
        self._time = StreamTime()
        self._lamp = Lamp()
        self._tracker: LiveTracker | None = None
        self._range: TempoRange | None = None
        self._source: Source | None = None
        self._health: Health | None = None
        self._silences: list[tuple[float, bool]] = []
        self._activation = (0.0, 0.0)
        self._frames: deque[tuple[float, float, float]] = deque(maxlen=FRAMES)
        self._hasty = False  # whether it was said that the sound comes too fast
        self._status_s = -math.inf  # when the last status was made, monotonic
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._policy = hurry()  # before the outputs' threads begin: they inherit it
        for delivery in self.deliveries:
            delivery.start()
        try:
            for control in controls:
                control.start()
                self._controls.append(control)
        except BaseException:
            self._end_all()
            raise

    def _lookahead_s(self) -> float:
        return LOOKAHEAD_S + max((d.early_s for d in self.deliveries), default=0.0)

    def begin(self, source: Source, tracker: LiveTracker, health: Health) -> None:
        """Begin a stream; ``tracker`` must be new or reset, ``health`` is kept by the caller."""
        self._clock = BeatClock(self._lookahead_s(), self._clock)
        self._time = StreamTime()
        self._lamp = Lamp()
        self._source, self._tracker, self._health = source, tracker, health
        self._range = TempoRange(tracker)
        tracker.on_silence = lambda time_s, silent: self._silences.append((time_s, silent))

    def view(self) -> View:
        """Return the clock's pulse as it is now, for the terminal; within a stream."""
        assert self._tracker is not None
        return self._lamp.view(self._clock, self._tracker.time_s)

    def frame(self, time_s: float, beat: float, downbeat: float) -> None:
        """Take the activations of a frame, for the page."""
        self._activation = (beat, downbeat)
        self._frames.append((time_s, beat, downbeat))

    def step(self, block: NDArray[np.float32], events: Sequence[Event], at_s: float) -> None:
        """Take a block that came at ``at_s``, monotonic, and what it made known."""
        assert self._tracker is not None
        now_s = self._tracker.time_s
        self._clock.lookahead_s = self._lookahead_s()  # it changes while a delay does
        if len(block):
            if self._time.wall(0.0) is None:
                _log.debug("stream time 0 is %.6f s of the monotonic clock", at_s - now_s)
            self._time.heard(now_s, at_s)
            if self._time.hasty >= HASTY and not self._hasty:
                self._hasty = True
                _log.warning("The sound comes faster than real time, so outputs cannot keep time "
                             "with it; --stdin --realtime slows it down.")  # fmt: skip
        for time_s, silent in self._silences:
            for event in events:
                if event.emitted_s < time_s:
                    self._clock.event(event)
            events = [e for e in events if e.emitted_s >= time_s]
            self._clock.silence(time_s, silent)
        self._silences.clear()
        for event in events:
            self._clock.event(event)
        for when_s, command in self.commands.drain():
            self._command(command, min(now_s, self._time.stream(when_s) or now_s), now_s)
        given = self._clock.advance(now_s if len(block) else self._sounding_s(now_s, at_s))
        for what in given:
            if isinstance(what, ClockStateChange):
                _log.info("%9.3f s  %s", what.time_s, what.state.value)
        self._pass_on(given)
        if at_s - self._status_s >= STATUS_S:
            self._status_s = at_s
            self._send_status(now_s, at_s)

    def _sounding_s(self, heard_s: float, at_s: float) -> float:
        """Return what sounds at ``at_s`` while no audio comes: the pulse goes on meanwhile."""
        now_s = self._time.stream(at_s)
        return heard_s if now_s is None else max(heard_s, min(now_s, heard_s + MAX_GAP_S))

    def _command(self, command: Command, time_s: float, now_s: float) -> None:
        """Carry out what the user asked for at ``time_s``."""
        assert self._range is not None
        before = settings(self._clock)
        try:
            if command.kind == "delay":
                self._set_delay(command.output, command.numbers[0])
            elif command.kind == "nudge":
                self._nudge(command.numbers[0])
            elif command.kind == "tempo":
                self._range.steer(command.numbers, self._clock.tempo_bpm / self._clock.factor)
                self._clock.retune(now_s, level_chosen=command.numbers not in ((), AUTO))
            elif command.kind == "restart":
                self._range.restore()
                self._clock.restart(now_s)
            else:
                self._clock.command(command, time_s)
        except ConfigError as error:
            _log.warning("%s", error)
        else:
            _log.info("%s", outcome(command, before, self._clock, self._range.bpm))

    def _set_delay(self, name: str, delay_ms: float) -> None:
        for delivery in self.deliveries:
            if delivery.name == name:
                delivery.set_delay(delay_ms)
                return
        raise ConfigError(f"There is no output {name[:60]!a}.")

    def _nudge(self, step_ms: float) -> None:
        """Move all delays by so much, or by what every one of them still can: they stay in step."""
        delays = {d.name: d.health().delay_ms for d in self.deliveries}
        low = MIN_DELAY_MS - min(delays.values(), default=0.0)
        high = MAX_DELAY_MS - max(delays.values(), default=0.0)
        for name, delay_ms in delays.items():
            self._set_delay(name, delay_ms + max(low, min(high, step_ms)))

    def _pass_on(self, given: Sequence[Tick | ClockStateChange]) -> None:
        for what in given:
            self._lamp.given(what)
            at_s = self._time.wall(what.time_s)
            if at_s is not None:
                self._put(what, at_s)

    def _put(self, what: Tick | ClockStateChange | Status, at_s: float) -> None:
        for delivery in self.deliveries:
            delivery.put(what, at_s)

    def _send_status(self, now_s: float, at_s: float) -> None:
        assert self._source is not None and self._health is not None and self._range is not None
        clock = self._clock
        status = Status(
            stream_s=now_s,
            state=clock.state,
            tempo_bpm=clock.tempo_bpm or None,
            confidence=clock.confidence,
            level_db=self._health.level_db,
            clipping=self._health.clipping,
            activation=self._activation[0],
            downbeat=self._activation[1],
            source=self._source.name,
            health=self._health.line(),
            outputs=tuple(delivery.health() for delivery in self.deliveries),
            frames=tuple(self._frames),
            tempo_range=self._range.bpm,
            range_chosen=self._range.chosen,
            factor=clock.factor,
            meter=clock.meter,
        )
        self._frames.clear()
        wall_s = self._time.wall(now_s)  # steadier than the arrival of one block
        self._put(status, at_s if wall_s is None else wall_s)

    def end(self) -> None:
        """End a stream: what has been given is still sent; then the clock stands still."""
        if self._tracker is not None:
            self._clock.restart(self._tracker.time_s)
            self._pass_on(self._clock.advance(self._tracker.time_s))
            self._tracker.on_silence = None
        self._silences.clear()  # what the tracker told at its very end
        self._frames.clear()
        self._tracker = self._source = self._health = None

    def close(self) -> None:
        """End the controls and the outputs; say what was not delivered."""
        self._end_all()
        for delivery in self.deliveries:
            _log.log(logging.INFO if delivery.opened else logging.ERROR, "%s", _report(delivery))

    @property
    def complete(self) -> bool:
        """Whether every output could be opened, if only for a while."""
        return all(delivery.opened for delivery in self.deliveries)

    def _end_all(self) -> None:
        for control in self._controls:
            with contextlib.suppress(Exception):
                control.stop()
        for delivery in self.deliveries:
            delivery.stop()
        for delivery in self.deliveries:
            delivery.join()
        sys.setswitchinterval(self._switch_s)
        relax(self._policy)


def hurry() -> tuple[int, os.sched_param] | None:
    """Ask the system to run this thread before ordinary ones; return what it was before, if it did.

    Without the right to (root, CAP_SYS_NICE or an rtprio limit) all stays as it is: then other
    programs that want the processor may make beats late.
    """
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except (AttributeError, OSError):  # no such system, or no right
        return None
    return before


def relax(policy: tuple[int, os.sched_param] | None) -> None:
    """Undo `hurry`, which returned ``policy``."""
    if policy is not None:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, *policy)


def _report(delivery: Delivery) -> str:
    health = delivery.health()
    text = f"{health.name}: {f'{health.sent} sent' if delivery.opened else 'it never opened'}"
    for count, word in (
        (health.late, "late"), (health.dropped, "dropped"), (health.reconnects, "reconnects"),
    ):  # fmt: skip
        text += f", {count} {word}" if count else ""
    return text
