"""Packets on a serial line, for a microcontroller.

A packet is COBS-encoded (Cheshire, Baker 1999), so that a zero byte occurs only as its end: a
receiver that joins late waits for a zero. Decoded, numbers are little-endian:

    beat   u8 1, u8 sequence, u8 position, u8 beats per bar, u16 tempo in 1/100 bpm,
           u8 confidence 0-255, u8 flags (bit 0: a jump), u32 beats since the start, u16 CRC
    state  u8 2, u8 sequence, u8 state (0 searching, 1 locked, 2 holding, 3 silent, 4 lost), u16 CRC

The sequence number goes up by one with each packet and tells of lost ones. The CRC is CRC-16/XMODEM
(polynomial 0x1021, begins with 0) over the bytes before it.
"""

from __future__ import annotations

import binascii
import contextlib
import struct
import time
from typing import Any

from beattrack.config import require
from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange, Tick
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.spec import OutputSpec

BEAT, STATE = 1, 2
JUMP = 1  # flag
STATES = tuple(ClockState)  # a state's number is its place
REPEAT_S = 5.0  # after which a state is told again: many boards restart when their port is opened
WRITE_S = 0.2  # a line that takes nothing for so long is stuck


class SerialOutput:
    """Writes a packet at each beat and each change of state, and the state again now and then."""

    ahead_s = 0.0
    beats_only = True

    def __init__(self, spec: OutputSpec) -> None:
        """Prepare; ``baud`` is 115200 unless given. Raises ConfigError."""
        self.name = spec.text
        self._path = spec.place
        self._baud = int(spec.options.get("baud", 115200))
        require(300 <= self._baud <= 4_000_000, "baud", self._baud, "300-4000000")
        self._line: Any = None
        self._sequence = 0
        self._state: ClockState | None = None  # the last one told
        self._told_s = 0.0  # and when, monotonic

    def open(self) -> None:
        """Open the line, 8 data bits, no parity, 1 stop bit. Raises OSError."""
        import serial

        self._line = serial.Serial(
            self._path, self._baud, timeout=0, write_timeout=WRITE_S, exclusive=True
        )

    def send(self, due: Due) -> None:
        """Write a packet at once. Raises OSError."""
        what = due.what
        if isinstance(what, Tick):
            packet = beat_packet(what, self._sequence)
        elif isinstance(what, ClockStateChange):
            self._state = what.state
            packet = self._state_packet(what.state)
        elif self._state is not None and time.monotonic() - self._told_s >= REPEAT_S:
            packet = self._state_packet(self._state)
        else:
            return
        if self._line is None:
            raise ConnectionError("not connected")
        self._line.write(packet)
        self._sequence = (self._sequence + 1) % 256

    def _state_packet(self, state: ClockState) -> bytes:
        self._told_s = time.monotonic()
        return frame(struct.pack("<BBB", STATE, self._sequence, STATES.index(state)))

    def close(self) -> None:
        """Let go of the line."""
        if self._line is not None:
            with contextlib.suppress(Exception):
                self._line.close()
            self._line = None


def beat_packet(tick: Tick, sequence: int) -> bytes:
    """Return the packet of a beat, ready for the line."""
    return frame(
        struct.pack(
            "<BBBBHBBI", BEAT, sequence, tick.position, tick.beats_per_bar,
            min(65535, round(tick.tempo_bpm * 100)), round(255 * min(1.0, tick.confidence)),
            JUMP if tick.jump else 0, tick.beat % 2**32,
        )
    )  # fmt: skip


def frame(payload: bytes) -> bytes:
    """Return a payload of at most 250 bytes with its CRC, COBS-encoded, and its end."""
    data = payload + struct.pack("<H", binascii.crc_hqx(payload, 0))
    # Each stretch up to a zero is led by its length plus one; the zeros themselves are left out.
    return b"".join(bytes([len(part) + 1]) + part for part in data.split(b"\0")) + b"\0"
