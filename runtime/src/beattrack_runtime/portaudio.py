"""PortAudio, through sounddevice: imported when sound is wanted, shared by all that use it."""

from __future__ import annotations

import contextlib
import importlib
import threading
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from beattrack_runtime.errors import SourceError
from beattrack_runtime.quiet import hush

_lock = threading.RLock()
_open: weakref.WeakSet[Any] = weakref.WeakSet()  # streams of this program


def portaudio() -> ModuleType:
    """Import sounddevice: machines without PortAudio read files too. Raises SourceError.

    From then on the sound libraries' own messages are not shown.
    """
    hush()
    try:
        return importlib.import_module("sounddevice")
    except OSError:
        raise SourceError(
            "The PortAudio library is missing: on Debian and Ubuntu, "
            "'apt install libportaudio2' brings it."
        ) from None


@contextlib.contextmanager
def opening() -> Iterator[None]:
    """Hold this while devices are looked up and streams opened: one thread at a time."""
    with _lock:
        yield


def opened(stream: Any) -> None:
    """Tell of a stream that has been opened, so that `look_again` closes it."""
    _open.add(stream)


def release(stream: Any) -> None:
    """Stop and close a stream, also of a device that has gone."""
    sd = portaudio()
    try:
        # abort, not stop: stop waits for buffers of a device that may be gone
        stream.abort()
        stream.close()
    except sd.PortAudioError:
        pass  # a device that has gone cannot be closed any better
    finally:
        _open.discard(stream)


def look_again() -> None:
    """Have PortAudio list the devices anew: it never sees those plugged in after its start.

    No stream survives that: this program's others are closed, and whoever owns one opens it again.
    """
    sd = portaudio()
    with opening():
        for stream in list(_open):
            release(stream)
        sd._terminate()
        sd._initialize()


def words(error: Exception | None) -> str:
    """Return PortAudio's own words without its error number and final stop."""
    text = str(error.args[0]) if error is not None and error.args else str(error)
    for start in ("Error opening InputStream: ", "Error opening OutputStream: "):
        text = text.removeprefix(start)
    return text.split(" [PaErrorCode")[0].rstrip(".")
