"""Live audio from a sound card, through PortAudio."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import SourceError

if TYPE_CHECKING:
    from types import ModuleType

BLOCK_S = 0.005  # of the callback: short against the 20 ms of a frame
QUEUE_S = 2.0  # audio that waits longer is of no use to a live show: it is dropped
GONE_S = 3.0  # a device that is silent for so long has been unplugged
_POLL_S = 0.1  # how long a read may wait before the program looks around

_SOUND = Path("/dev/snd")
# What container engines leave in the containers that they run.
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_PULSE = (
    '-v "$XDG_RUNTIME_DIR/pulse/native:/tmp/pulse" -e PULSE_SERVER=unix:/tmp/pulse '
    '--user "$(id -u)"'
)

_log = logging.getLogger("beattrack")


def _portaudio() -> ModuleType:
    """Import sounddevice, only when sound is wanted: machines without PortAudio read files too."""
    try:
        import sounddevice
    except OSError:
        raise SourceError(
            "The PortAudio library is missing: on Debian and Ubuntu, "
            "'apt install libportaudio2' brings it."
        ) from None
    module: ModuleType = sounddevice
    return module


def list_devices() -> list[str]:
    """Return a line for each input device: index, name, channels, rate, '(default)'.

    Raises:
        SourceError: PortAudio is missing, or there is no input device.
    """
    sd = _portaudio()
    try:
        devices = [d for d in sd.query_devices() if d["max_input_channels"] > 0]
    except sd.PortAudioError as error:
        raise SourceError(f"The sound devices cannot be listed: {_words(error)}.") from None
    if not devices:
        raise _no_input()
    default = sd.default.device[0]
    return [
        f"{d['index']:3d}  {d['name']}  ({d['max_input_channels']} channels, "
        f"{d['default_samplerate']:.0f} Hz){'  (default)' if d['index'] == default else ''}"
        for d in devices
    ]


class MicSource:
    """A sound card's input at the device's own rate.

    The callback, which runs on PortAudio's thread, only copies into a bounded queue. What the
    queue cannot take is counted and replaced by silence of the same length, so that stream time
    keeps step with the clock on the wall.
    """

    duration_s: float | None = None

    def __init__(self, device: str | None = None) -> None:
        """Open and start ``device``: an index, part of a name, or None for the default.

        Raises:
            SourceError: PortAudio or the device is missing, or it cannot be opened.
        """
        self._sd = _portaudio()
        info = _find(self._sd, device)
        self.name = str(info["name"])
        self.sample_rate = round(info["default_samplerate"])
        self.overruns = 0
        size = max(1, round(BLOCK_S * self.sample_rate))
        self._room = round(QUEUE_S * self.sample_rate / size)  # blocks
        # Entries are (samples lost before it, block); SimpleQueue never blocks the callback.
        self._queue: queue.SimpleQueue[tuple[int, NDArray[np.float32]]] = queue.SimpleQueue()
        self._lost = 0  # samples dropped since the last block that fitted
        self.channels, self._stream = self._start(info, size)

    def _start(self, info: dict[str, Any], size: int) -> tuple[int, Any]:
        """Open the stream in stereo where there is stereo, else in mono."""
        error: Exception | None = None
        for channels in dict.fromkeys((min(2, info["max_input_channels"]), 1)):
            try:
                stream = self._sd.InputStream(
                    samplerate=self.sample_rate, blocksize=size, device=info["index"],
                    channels=channels, dtype="float32", latency="low", callback=self._take,
                )  # fmt: skip
                stream.start()
                return channels, stream
            except self._sd.PortAudioError as failed:
                error = error or failed
        raise SourceError(f"Cannot open the input device '{self.name}': {_words(error)}.")

    def _take(self, data: NDArray[np.float32], frames: int, when: Any, status: Any) -> None:
        if status.input_overflow:  # PortAudio lost samples before us; it does not say how many
            self.overruns += 1
        if self._queue.qsize() >= self._room:
            if not self._lost:
                self.overruns += 1
            self._lost += frames
            return
        self._queue.put((self._lost, data.copy()))
        self._lost = 0

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 [n, channels] as it comes, and [0, channels] while nothing does.

        Raises:
            SourceError: the device has stopped delivering.
        """
        nothing = np.zeros((0, self.channels), np.float32)
        last = time.monotonic()
        while True:
            try:
                lost, block = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if time.monotonic() - last > GONE_S:
                    raise SourceError(f"The input device '{self.name}' went away.") from None
                yield nothing
                continue
            last = time.monotonic()
            if lost:
                _log.warning("%.1f s of audio came too fast and were dropped.",
                             lost / self.sample_rate)  # fmt: skip
            while lost:  # in slices: a long gap must not need a large array
                gap = min(lost, self.sample_rate)
                lost -= gap
                yield np.zeros((gap, self.channels), np.float32)
            yield block

    def close(self) -> None:
        """Stop and release the device."""
        try:
            # abort, not stop: stop waits for buffers of a device that may be gone
            self._stream.abort()
            self._stream.close()
        except self._sd.PortAudioError as error:
            _log.debug("closing '%s': %s", self.name, error)


def _find(sd: ModuleType, device: str | None) -> dict[str, Any]:
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


def _no_input() -> SourceError:
    """Return the sentence for a machine without inputs; in a container it names what is missing.

    A container sees no sound of its host unless its command line says so.
    """
    if not any(mark.exists() for mark in _CONTAINER_MARKS):
        return SourceError("There is no sound input device.")
    nodes = list(_SOUND.glob("pcm*c"))  # one for each input
    if os.environ.get("PULSE_SERVER"):
        missing = "the sound server of PULSE_SERVER does not answer or has no input"
    elif not _SOUND.is_dir():
        missing = f"start it with '--device /dev/snd --group-add audio', or with '{_PULSE}'"
    elif not nodes:
        missing = "connect one, then start the container again"
    elif not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        missing = "this user may open none: start it with '--group-add audio'"
    else:
        missing = "those in /dev/snd are in use or do not answer"
    return SourceError(f"There is no sound input device in this container: {missing}.")


def _words(error: Exception | None) -> str:
    """Return PortAudio's own words without its error number and final stop."""
    text = str(error.args[0]) if error is not None and error.args else str(error)
    return text.removeprefix("Error opening InputStream: ").split(" [PaErrorCode")[0].rstrip(".")
