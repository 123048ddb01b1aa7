"""Ableton Link: tempo, beat and bar shared with every Link peer of the local network."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from beattrack.config import require
from beattrack_runtime.errors import OutputError
from beattrack_runtime.live.clock.ticks import RUNNING, ClockStateChange, Tick
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.spec import OutputSpec

CORRECT = 0.5  # share of a phase error that the next beat works off, by its tempo
MAX_CORRECT = 0.05  # share by which the tempo may differ for that
CLOSE_BEATS = 0.01  # an error below this is the jitter of threads
FORCE_BEATS = 0.1  # beyond this the session's beat is set anew
TEMPO_STEP = 0.01  # bpm
MIN_BPM, MAX_BPM = 20.0, 999.0  # that Link can do; the clock may run at four times the tracker's


class LinkOutput:
    """Leads a Link session: at each beat others follow ours a little or, after a jump, at once.

    Link's timeline is everybody's: whoever else changes the tempo is overruled at the next beat.
    """

    ahead_s = 0.0
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; ``quantum`` replaces the beats of a bar as what peers agree on.

        With ``startstop`` no, peers are neither started nor stopped.

        Raises:
            OutputError: the binding is not installed.
            ConfigError: ``quantum`` is out of range.
        """
        self.name = spec.text
        quantum = spec.options.get("quantum")
        self._leads_transport = bool(spec.options.get("startstop", True))
        self._quantum = None if quantum is None else int(quantum)
        require(self._quantum is None or 1 <= self._quantum <= 16, "quantum", quantum, "1-16")
        try:
            import aalink
        except ImportError:
            raise OutputError(
                f"{self.name} needs the package aalink, which is under the GPL and therefore not "
                "installed by itself: 'pip install aalink' brings it."
            ) from None
        self._make = aalink.Link
        self._link: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Join the session of the network, or begin one."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._link = self._loop.run_until_complete(self._join())
        self._link.start_stop_sync_enabled = self._leads_transport
        self._link.enabled = True

    async def _join(self) -> Any:
        return self._make(120.0)  # takes the loop that runs; for callbacks, of which we have none

    def send(self, due: Due) -> None:
        """Lead the session."""
        link, what = self._link, due.what
        if link is None:
            raise ConnectionError("not connected")
        if isinstance(what, ClockStateChange):
            running = what.state in RUNNING
            if self._leads_transport and bool(link.playing) is not running:
                link.playing = running
        elif isinstance(what, Tick):
            self._beat(what, time.monotonic() - due.at)

    def _beat(self, tick: Tick, late_s: float) -> None:
        link = self._link
        quantum = float(self._quantum or tick.beats_per_bar)
        if link.quantum != quantum:
            link.quantum = quantum
        tempo = min(max(tick.tempo_bpm, MIN_BPM), MAX_BPM)
        place = (tick.position - 1 + late_s * tempo / 60) % quantum
        error = (place - link.phase + quantum / 2) % quantum - quantum / 2  # we are ahead by
        force = tick.jump or abs(error) > FORCE_BEATS
        if not force and abs(error) > CLOSE_BEATS:
            tempo *= 1 + max(-MAX_CORRECT, min(MAX_CORRECT, CORRECT * error))
        if abs(link.tempo - tempo) >= TEMPO_STEP:
            link.tempo = tempo
        if force:  # last: what is changed right after may be reckoned from the state before
            link.force_beat(place)

    def close(self) -> None:
        """Leave the session."""
        if self._link is not None:
            if self._leads_transport:
                self._link.playing = False
            self._link.enabled = False
            self._link = None
        if self._loop is not None:
            self._loop.close()
            self._loop = None
