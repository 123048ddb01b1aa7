"""An audible click on every beat, a higher one on the first of a bar, through a sound card."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beattrack.config import require
from beattrack_runtime.errors import OutputError
from beattrack_runtime.live.clock.ticks import Tick
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.spec import OutputSpec
from beattrack_runtime.outputs.click import BEAT_HZ, DOWNBEAT_HZ, make_click
from beattrack_runtime.portaudio import opened, opening, portaudio, release, words

LATENCY_S = 0.08  # of the card's buffer: its length is known, and a short one runs empty
WAITING = 32  # clicks that wait for their moment at most


class ClickOutput:
    """Plays clicks at their moment by the sound card's own clock.

    The card says when the samples that it asks for will be heard, so neither its buffer nor the
    jitter of threads moves a click; what the card does not know of, such as the air, is what
    ``delay`` is for.
    """

    ahead_s = 0.25  # more than a card's buffer
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; ``volume`` is a share of full scale, 0-1. Raises ConfigError."""
        self.name = spec.text
        self._device: int | str | None = spec.place or None
        if spec.place.isdecimal():
            self._device = int(spec.place)
        volume = float(spec.options.get("volume", 0.45))
        require(0 < volume <= 1, "volume", volume, "above 0 and at most 1")
        self._volume = volume
        self._stream: Any = None
        self._lock = threading.Lock()
        self._due: deque[tuple[float, bool]] = deque(maxlen=WAITING)  # (monotonic, whether a one)
        self._playing: list[tuple[int, NDArray[np.float32]]] = []  # (offset in the next block, ..)

    def open(self) -> None:
        """Open the card. Raises OutputError."""
        self._due.clear()
        self._playing = []
        sd = portaudio()
        try:
            with opening():
                rate = round(sd.query_devices(self._device, "output")["default_samplerate"])
                self._rate = rate
                self._clicks = {
                    True: make_click(DOWNBEAT_HZ, rate, self._volume),
                    False: make_click(BEAT_HZ, rate, self._volume),
                }
                self._stream = sd.OutputStream(
                    samplerate=rate, device=self._device, channels=1, dtype="float32",
                    latency=LATENCY_S, callback=self._fill,
                )  # fmt: skip
                opened(self._stream)
                self._stream.start()
        except (sd.PortAudioError, ValueError) as error:
            raise OutputError(f"the sound card cannot be opened: {words(error)}") from None

    def send(self, due: Due) -> None:
        """Hand a click to the card. Raises ConnectionError when the card is gone."""
        with opening():  # the search for a lost microphone closes this stream as well
            if self._stream is None or not self._stream.active:
                raise ConnectionError("the sound card has gone")
        with self._lock:
            if isinstance(due.what, Tick):
                self._due.append((due.at, due.what.position == 1))

    def _fill(self, out: NDArray[np.float32], frames: int, when: Any, status: Any) -> None:
        """PortAudio's callback: mix what falls into this block."""
        out.fill(0)
        heard_s = time.monotonic() + max(0.0, when.outputBufferDacTime - when.currentTime)
        with self._lock:
            while self._due and (self._due[0][0] - heard_s) * self._rate < frames:
                at_s, one = self._due.popleft()
                start = round((at_s - heard_s) * self._rate)
                if start > -self._rate // 20:  # else it is 50 ms late: better not at all
                    self._playing.append((max(0, start), self._clicks[one]))
        going_on = []
        for start, sound in self._playing:
            part = sound[: frames - start]
            out[start : start + len(part), 0] += part
            if len(part) < len(sound):
                going_on.append((0, sound[len(part) :]))
        self._playing = going_on

    def close(self) -> None:
        """Let go of the card."""
        if self._stream is not None:
            release(self._stream)
            self._stream = None
