"""Live audio from a sound card, through PortAudio."""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import MisuseError, SourceError
from beattrack_runtime.live.fit import Fitter
from beattrack_runtime.live.pace import Pace, in_step, silence
from beattrack_runtime.portaudio import look_again, opened, opening, portaudio, release, words

if TYPE_CHECKING:
    from types import ModuleType

BLOCK_S = 0.005  # of the callback: short against the 20 ms of a frame
QUEUE_S = 2.0  # audio that waits longer is of no use to a live show: it is dropped
QUIET_S = 0.5  # audio that does not come for so long is carried on by silence
GONE_S = 3.0  # a device that gives nothing for so long has been unplugged
FIRST_RETRY_S, LAST_RETRY_S = 0.25, 4.0  # between attempts to open it again
_POLL_S = 0.03  # how long a read may wait: the clock's ticks must go on while no audio comes

_ALSA_NUMBER = re.compile(r" \(hw:\d+,\d+\)$")
SOUND = Path("/dev/snd")
# What container engines leave in the containers that they run.
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_PULSE = (
    '-v "$XDG_RUNTIME_DIR/pulse/native:/tmp/pulse" -e PULSE_SERVER=unix:/tmp/pulse '
    '--user "$(id -u)"'
)

_log = logging.getLogger("beattrack")


def list_devices() -> list[str]:
    """Return a line for each input device: index, name, channels, rate, '(default)'.

    The outputs follow in the same way, under a heading.

    Raises:
        SourceError: PortAudio is missing, or there is no input device.
    """
    with opening():
        sd = portaudio()
    try:
        devices = list(sd.query_devices())
    except sd.PortAudioError as error:
        raise SourceError(f"The sound devices cannot be listed: {words(error)}.") from None
    if not any(d["max_input_channels"] > 0 for d in devices):
        raise _no_input()
    inputs, outputs = (_lines(sd, devices, kind) for kind in ("input", "output"))
    return [*inputs, *(["Outputs, for click://DEVICE:", *outputs] if outputs else [])]


def _lines(sd: ModuleType, devices: list[dict[str, Any]], kind: str) -> list[str]:
    """Return a line for each device that has channels of a kind, ``input`` or ``output``."""
    default = sd.default.device[("input", "output").index(kind)]
    return [
        f"{d['index']:3d}  {d['name']}  ({d[f'max_{kind}_channels']} channels, "
        f"{d['default_samplerate']:.0f} Hz){'  (default)' if d['index'] == default else ''}"
        for d in devices
        if d[f"max_{kind}_channels"] > 0
    ]


class MicSource:
    """A sound card's input at the device's own rate.

    The callback, which runs on PortAudio's thread, only copies into a bounded queue. What the
    queue cannot take is counted and replaced by silence of the same length, so that stream time
    keeps step with the clock on the wall. So it does when the device is pulled out: silence goes
    on, and the device is opened again as soon as it is back.
    """

    duration_s: float | None = None

    def __init__(self, device: str | None = None, channel: int | None = None) -> None:
        """Open and start ``device``: an index, part of a name, or None for the default.

        ``channel``, from 1, is heard alone.

        Raises:
            MisuseError: no such channel.
            SourceError: PortAudio or the device is missing, or it cannot be opened.
        """
        with opening():
            self._sd = portaudio()
            info = find(self._sd, device)
        self.name = str(info["name"])
        if channel is not None and not 1 <= channel <= info["max_input_channels"]:
            raise MisuseError(
                f"There is no channel {channel}: '{self.name}' has {info['max_input_channels']}."
            )
        self._channel = channel
        self.sample_rate = int(info["default_samplerate"])
        self.overruns = 0
        self.note = ""  # what is wrong with the device now
        # Entries are (when it came, its samples lost before it, block, whose rate and channels are
        # the fitter's); SimpleQueue never blocks the callback.
        self._queue: queue.SimpleQueue[tuple[float, int, NDArray[np.float32], Fitter]]
        self._queue = queue.SimpleQueue()
        self._room = round(QUEUE_S / BLOCK_S)  # blocks
        self._lost = 0  # samples dropped since the last block that fitted
        self._closed = threading.Event()
        self._pace = Pace(self.sample_rate)
        self._stream, self.channels = self._open(info, self.sample_rate)

    def _open(self, info: dict[str, Any], rate: int, channels: int | None = None) -> Any:
        """Start the device; return (stream, channels that it gives to `blocks`).

        In stereo where there is stereo, else in mono; as many as the chosen channel needs.
        ``channels`` are those that were settled before.
        """
        error: Exception | None = None
        have = info["max_input_channels"]
        for count in dict.fromkeys((min(2, have), 1) if self._channel is None
                                   else (self._channel, have)):  # fmt: skip
            given = channels or (count if self._channel is None else 1)
            take = partial(self._take, fitter=Fitter(rate, self.sample_rate, given))
            try:
                with opening():
                    stream = self._sd.InputStream(
                        samplerate=rate, blocksize=max(1, round(BLOCK_S * rate)),
                        device=info["index"], channels=count, dtype="float32", latency="low",
                        callback=take,
                    )  # fmt: skip
                    opened(stream)
            except self._sd.PortAudioError as failed:
                error = error or failed
                continue
            try:
                stream.start()
                return stream, given
            except self._sd.PortAudioError as failed:
                release(stream)
                error = error or failed
        raise SourceError(f"Cannot open the input device '{self.name}': {words(error)}.")

    def _take(
        self, data: NDArray[np.float32], frames: int, when: Any, status: Any, fitter: Fitter
    ) -> None:
        if status.input_overflow:  # PortAudio lost samples before us; it does not say how many
            self.overruns += 1
        if self._queue.qsize() >= self._room:
            if not self._lost:
                self.overruns += 1
            self._lost += frames
            return
        block = data if self._channel is None else data[:, self._channel - 1 : self._channel]
        self._queue.put((time.monotonic(), self._lost, block.copy(), fitter))
        self._lost = 0

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels] as it comes, silence or [0, channels] while nothing does."""
        last = time.monotonic()
        opener: threading.Thread | None = None  # while the device is gone
        while True:
            try:
                when, lost, block, fitter = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                now = time.monotonic()
                if opener is None and (now - last > GONE_S or not self._stream.active):
                    opener = threading.Thread(target=self._reopen, name="microphone", daemon=True)
                    opener.start()
                elif opener is not None and not opener.is_alive():
                    opener, last = None, now  # open, and no sound yet
                missing = self._pace.behind(now) if now - last > QUIET_S or opener else 0
                self._pace.fill(missing)
                yield from silence(missing, self.channels, self.sample_rate)
                continue
            if opener is not None:
                opener = None
                self._pace.restart()
            last = when
            if lost:
                lost_s = lost * BLOCK_S / max(1, len(block))
                _log.warning("%.1f s of audio came too fast and were dropped.", lost_s)
                missing = round(lost_s * self.sample_rate)
                self._pace.heard(missing, when)
                yield from silence(missing, self.channels, self.sample_rate)
            yield from in_step(self._pace, fitter.push(block), when, self.sample_rate)
            missing = self._pace.lost(when)
            if missing:
                self.overruns += 1
                yield from silence(missing, self.channels, self.sample_rate)

    def _reopen(self) -> None:
        """Close the device and open it again, however long that takes."""
        _log.warning("The input device '%s' went away; it is opened again when it is back.",
                     self.name)  # fmt: skip
        self.note = "device gone"
        release(self._stream)
        wait = FIRST_RETRY_S
        while not self._closed.wait(wait):
            wait = min(2 * wait, LAST_RETRY_S)
            with opening():
                look_again()
                try:
                    info = self._find_again()
                    rate = self._rate_of(info)
                    self._stream, _ = self._open(info, rate, self.channels)
                except (SourceError, self._sd.PortAudioError, ValueError) as error:
                    _log.debug("opening '%s': %s", self.name, error)
                    continue
            self.note = ""
            _log.info("The input device '%s' is back.", self.name)
            return

    def _find_again(self) -> dict[str, Any]:
        """Return the device of the same name; ALSA's card number in it may have changed."""
        wanted = _ALSA_NUMBER.sub("", self.name)
        for info in self._sd.query_devices():
            enough = info["max_input_channels"] >= (self._channel or 1)
            if enough and _ALSA_NUMBER.sub("", str(info["name"])) == wanted:
                return dict(info)
        raise SourceError(f"There is no input device '{self.name}'.")

    def _rate_of(self, info: dict[str, Any]) -> int:
        """Return the stream's own rate if the device takes it, else the device's."""
        try:
            self._sd.check_input_settings(
                device=info["index"], channels=1, dtype="float32", samplerate=self.sample_rate
            )
        except self._sd.PortAudioError:
            return int(info["default_samplerate"])
        return self.sample_rate

    def close(self) -> None:
        """Stop and release the device."""
        self._closed.set()
        with opening():  # not while it is being opened again
            release(self._stream)


def find(sd: ModuleType, device: str | None) -> dict[str, Any]:
    """Return PortAudio's description of an input device; raises SourceError."""
    wanted = int(device) if device is not None and device.strip().isdecimal() else device
    try:
        info: dict[str, Any] = sd.query_devices(wanted, "input")
        return info
    except (sd.PortAudioError, ValueError, OverflowError) as error:
        text = str(error)
    inputs = [d for d in sd.query_devices() if d["max_input_channels"] > 0]
    if not inputs:
        raise _no_input()
    if device is None:  # no default is set: take the first that can record
        return dict(inputs[0])
    if text.startswith("Multiple"):
        problem = f"Several input devices are called '{device}': give one's index,"
    elif text.startswith("Not an"):
        problem = f"The device '{device}' has no input:"
    else:
        problem = f"There is no input device '{device}':"
    raise SourceError(f"{problem} see --list-devices.")


def in_container() -> bool:
    """Whether this runs in a container."""
    return any(mark.exists() for mark in _CONTAINER_MARKS)


def _no_input() -> SourceError:
    """Return the sentence for a machine without inputs; in a container it names what is missing.

    A container sees no sound of its host unless its command line says so.
    """
    if not in_container():
        return SourceError("There is no sound input device.")
    nodes = list(SOUND.glob("pcm*c"))  # one for each input
    if os.environ.get("PULSE_SERVER"):
        missing = "the sound server of PULSE_SERVER does not answer or has no input"
    elif not SOUND.is_dir():
        missing = f"start it with '--device /dev/snd --group-add audio', or with '{_PULSE}'"
    elif not nodes:
        missing = "connect one, then start the container again"
    elif not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        missing = "this user may open none: start it with '--group-add audio'"
    else:
        missing = "those in /dev/snd are in use or do not answer"
    return SourceError(f"There is no sound input device in this container: {missing}.")
