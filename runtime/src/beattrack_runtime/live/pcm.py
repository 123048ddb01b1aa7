"""Raw PCM: what its bytes mean, and the header line in which a client may say so."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from beattrack_runtime.errors import MisuseError
from beattrack_runtime.resample import MAX_RATE, MIN_RATE
from beattrack_runtime.session import MAX_CHANNELS

MAGIC = b"beattrack-pcm"  # begins the optional header line
AUDIO_FILES = re.compile(rb"RIFF....WAVE|fLaC|OggS|ID3|FORM....AIF|\x1aE\xdf\xa3", re.DOTALL)
FIRST_BYTES = 12  # in which a file's kind shows

# How stdin and TCP alike are read.
READ_BYTES = 1 << 16  # at most, at once
POLL_S = 0.03  # how long a read may wait: the clock's ticks must go on while no audio comes
QUIET_S = 1.0  # audio that does not come for so long is carried on by silence


@dataclass(frozen=True)
class PcmFormat:
    """What raw bytes mean: interleaved samples, little-endian."""

    rate: int = 48000  # Hz
    channels: int = 1
    sample: str = "s16le"
    SAMPLES: ClassVar[dict[str, str]] = {"s16le": "<i2", "f32le": "<f4"}

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise MisuseError(f"A rate of {self.rate} Hz is not possible: {MIN_RATE}-{MAX_RATE}.")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise MisuseError(f"{self.channels} channels are not possible: 1-{MAX_CHANNELS}.")
        if self.sample not in self.SAMPLES:
            raise MisuseError(
                f"There is no PCM format '{self.sample[:20]}': {' or '.join(self.SAMPLES)}."
            )

    def __str__(self) -> str:
        return f"{self.sample}, {self.rate} Hz, channels: {self.channels}"


class PcmDecoder:
    """Turns bytes, cut anywhere, into samples."""

    def __init__(self, form: PcmFormat, channel: int | None = None) -> None:
        """Decode ``form``; ``channel``, from 1, takes that one alone."""
        self._form = form
        self._channel = channel
        self._dtype = np.dtype(form.SAMPLES[form.sample])
        self._frame_bytes = self._dtype.itemsize * form.channels
        self.rest = b""  # bytes short of a whole frame

    def push(self, data: bytes) -> NDArray[np.float32]:
        """Return float32 [n, channels], full scale at 1; NaN and infinity stay what they are."""
        data = self.rest + data
        whole = len(data) - len(data) % self._frame_bytes
        self.rest = data[whole:]
        raw = np.frombuffer(data, self._dtype, whole // self._dtype.itemsize)
        block = raw.reshape(-1, self._form.channels).astype(np.float32)
        if self._dtype.kind == "i":
            block *= np.float32(2.0**-15)
        return block if self._channel is None else block[:, self._channel - 1 : self._channel]


def parse_header(line: bytes, form: PcmFormat) -> PcmFormat:
    """Return the format that a header line, given without its end, declares.

    Args:
        line: ``beattrack-pcm`` and any of ``rate=HZ channels=N format=s16le|f32le``.
        form: what holds where the line says nothing.

    Raises:
        MisuseError: anything else.
    """
    words = line.decode("ascii", "replace").split()
    if not words or words[0] != MAGIC.decode():
        raise MisuseError(f"The header must begin with '{MAGIC.decode()} '.")
    given: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in ("rate", "channels", "format") or key in given:
            raise MisuseError(
                f"The header has '{word[:30]}': rate=, channels= and format= may stand, once each."
            )
        if key != "format" and not re.fullmatch(r"[0-9]{1,7}", value):
            raise MisuseError(f"The header's {key} '{value[:30]}' is no whole number.")
        given[key] = value
    return replace(
        form,
        rate=int(given.get("rate", form.rate)),
        channels=int(given.get("channels", form.channels)),
        sample=given.get("format", form.sample),
    )


def check_channel(channel: int | None, channels: int) -> None:
    """Refuse a channel, from 1, that the audio does not have. Raises MisuseError."""
    if channel is not None and not 1 <= channel <= channels:
        raise MisuseError(f"There is no channel {channel}: the audio has {channels}.")
