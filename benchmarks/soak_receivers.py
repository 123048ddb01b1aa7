"""Receivers of the soak: what each has heard, and how many beats it lost or had twice.

They are threads beside the show, not the processes of receivers.py: they die now and then.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

import numpy as np
from pythonosc.osc_message import OscMessage

BPM = 120.0  # of the music that is sent
SETTLE_S = 8.0  # before beats are counted
DEAD_EVERY_S, DEAD_S = 20.0, 4.0
TOLD_S = 1.0  # within which a receiver that has returned must know the state
SO_TIMESTAMPNS = 35  # of Linux; Python has no name for it


@dataclass
class Heard:
    """What a receiver got: (monotonic s, state of the show), and when it was not there."""

    beats: list[float] = field(default_factory=list)
    states: list[tuple[float, str]] = field(default_factory=list)
    dead: list[tuple[float, float]] = field(default_factory=list)

    def faults(self, begun: float) -> tuple[int, int]:
        """Return (beats lost, beats doubled), once settled, while it was there."""
        period = 60 / BPM
        beats = [at for at in self.beats if at > begun + SETTLE_S]
        lost = doubled = 0
        for one, other in itertools.pairwise(beats):
            away = any(one < end + 2.0 and start - 0.1 < other for start, end in self.dead)
            doubled += other - one < 0.5 * period
            if not away:
                lost += max(0, round((other - one) / period) - 1)
        return lost, doubled

    def jitter_ms(self, begun: float) -> float:
        """Return by how much gaps are off a beat, 95th percentile, once settled."""
        gaps = np.diff([at for at in self.beats if at > begun + SETTLE_S])
        return (
            float(np.percentile(np.abs(gaps - 60 / BPM), 95) * 1e3) if len(gaps) else float("inf")
        )

    def untold(self, ended: float) -> int:
        """Return how often it came back and was not told the state at once."""
        backs = [end for _, end in self.dead if end < ended - TOLD_S]
        return sum(not any(b < at < b + TOLD_S for at, _ in self.states) for b in backs)

    def unlocked(self, begun: float, ended: float) -> int:
        """Return how often the show said, once settled, that it had no pulse."""
        return sum(
            begun + SETTLE_S < at < ended and state not in ("locked", "holding")
            for at, state in self.states
        )


def osc_port(number: int = 0) -> socket.socket:
    """Return a socket for OSC; the system notes when each datagram arrives."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind(("127.0.0.1", number))
    port.settimeout(0.2)
    port.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return port


def receive_osc(
    port: socket.socket, heard: Heard, ended: threading.Event, mortal: bool = False
) -> None:
    """Collect beats and states from OSC, each with the moment at which the system had it.

    One that is mortal closes its port now and then, and comes back to it.
    """
    number = port.getsockname()[1]
    end = time.monotonic() + DEAD_EVERY_S
    while not ended.is_set():
        if mortal and time.monotonic() > end:
            port.close()
            gone = time.monotonic()
            ended.wait(DEAD_S)
            port = osc_port(number)
            heard.dead.append((gone, time.monotonic()))
            end = time.monotonic() + DEAD_EVERY_S
        try:
            data, notes, _, _ = port.recvmsg(4096, 64)
        except TimeoutError:
            continue
        message = OscMessage(data)
        at_s = arrived_s(notes)
        if message.address == "/beattrack/beat":
            heard.beats.append(at_s)
        elif message.address == "/beattrack/state":
            heard.states.append((at_s, message.params[0]))
    port.close()


def arrived_s(notes: list[tuple[int, int, bytes]]) -> float:
    """Return when a datagram arrived, monotonic seconds, by what the system notes of it.

    This process waits for the processor as others do: by its own clock a beat that came on time
    would now and then seem lost, and the next one doubled.
    """
    for _, kind, note in notes:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", note[:16])
            return float(seconds + nanoseconds * 1e-9 - time.time() + time.monotonic())
    return time.monotonic()


def receive_os2l(port: int, heard: Heard, ended: threading.Event) -> None:
    """Collect beats from OS2L as lighting software does, but die now and then."""
    while not ended.is_set():
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(0.2)
            end = time.monotonic() + DEAD_EVERY_S
            client = None
            text = b""
            while time.monotonic() < end and not ended.is_set():
                try:
                    if client is None:
                        client = server.accept()[0]
                        client.settimeout(0.2)
                    data = client.recv(4096)
                except TimeoutError:
                    continue
                if not data:
                    client = None
                    continue
                *lines, text = (text + data).split(b"\n")
                heard.beats += [time.monotonic() for line in lines if json.loads(line)["evt"]]
            if client is not None:
                client.close()
        gone = time.monotonic()
        ended.wait(DEAD_S)
        heard.dead.append((gone, time.monotonic()))
