"""Hours of a live show: memory stays flat, and no beat is lost or doubled when receivers die.

Two parts, each with the command `beattrack` in a process of its own, fed from here:

- fast: hours of raw PCM on stdin, as fast as it goes; songs, silence, noise, changes of tempo.
- live: minutes in real time over TCP, in odd pieces, with reconnections; an OSC and an OS2L
  receiver, of which the latter dies and returns, and a port at which nobody listens.

``python benchmarks/soak.py`` takes 2 hours of audio and 15 minutes; ``--short`` takes 10 minutes
and one. It fails (exit code 1) when a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pythonosc.osc_message import OscMessage
from rich.console import Console
from rich.table import Table

RATE = 22050
MAX_GROWTH_MB = 2.0
WARM_UP = 0.25  # share of a run after which memory must be flat
BPM = 120.0  # of the live part
DEAD_EVERY_S, DEAD_S = 20.0, 4.0  # the OS2L receiver
RECONNECT_EVERY_S = 25.0  # the TCP client
SO_TIMESTAMPNS = 35  # of Linux; Python has no name for it
SETTLE_S = 8.0  # before beats are counted
COMMAND = [sys.executable, "-m", "beattrack_runtime"]


def drums(seconds: float, bpm: float, seed: int = 0) -> NDArray[np.float32]:
    """Return steady music with exact beats, float32 [n] at RATE: kick, snare, hats, bass."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(0.25 * RATE)) / RATE
    kick = np.sin(2 * np.pi * (45 * t + 6 * (1 - np.exp(-t * 40)))) * np.exp(-t * 18)
    snare = rng.normal(0, 0.5, len(t)) * np.exp(-t * 30) + np.sin(2 * np.pi * 190 * t) * np.exp(
        -t * 30
    )
    hat = np.diff(rng.normal(0, 0.3, len(t) + 1)) * np.exp(-t * 90)
    audio = np.zeros(round(seconds * RATE) + len(t), np.float32)
    half = 30 / bpm
    for k in range(int(seconds / half)):
        at = round(k * half * RATE)
        bass = np.sin(2 * np.pi * (55, 55, 82.5, 73.4)[k // 8 % 4] * t) * np.exp(-t * 6)
        part = 0.3 * hat + (0.3 * bass + (0.6 * snare if k % 4 == 2 else 0.8 * kick)) * (k % 2 == 0)
        audio[at : at + len(t)] += 0.4 * part.astype(np.float32)
    return audio[: round(seconds * RATE)]


def pcm(audio: NDArray[np.floating]) -> bytes:
    """Return s16le."""
    return (np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes()


def programme() -> Iterator[bytes]:
    """Yield an evening for ever, s16le in pieces of some 20 s."""
    rng = np.random.default_rng(1)
    pieces = [pcm(drums(20.0, bpm, seed)) for seed, bpm in enumerate((96, 120, 128, 140, 174))]
    silence = bytes(2 * RATE * 5)
    while True:
        order = rng.permutation(len(pieces))
        for number in order:
            yield pieces[number]
        yield silence
        yield pcm(rng.normal(0, 0.1, 10 * RATE))  # applause of a kind


def rss_mb(pid: int) -> float:
    """Return the resident size of a process, MB; 0 when it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def growth_mb(samples: list[tuple[float, float]]) -> float:
    """Return by how much memory grew from the warm-up to the end: (share of the run, MB) each."""
    early = [mb for at, mb in samples if WARM_UP <= at < WARM_UP + 0.15]
    late = [mb for at, mb in samples if at >= 0.85]
    return float(np.median(late) - np.median(early)) if early and late else float("inf")


def fast(hours: float) -> list[tuple[str, float, float]]:
    """Feed stdin as fast as it goes; return (what, value, bound) rows."""
    wanted = round(hours * 3600 * RATE) * 2
    process = subprocess.Popen(
        [*COMMAND, "--stdin", "--rate", str(RATE), "--output", "jsonl", "--output",
         "osc://127.0.0.1:9"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    counts = {"beat": 0, "state": 0, "out of order": 0}

    def read() -> None:
        last = -1.0
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            counts[event["type"]] += 1
            if event["type"] == "beat":
                counts["out of order"] += event["time_s"] <= last
                last = event["time_s"]

    reader = threading.Thread(target=read)
    reader.start()
    sent, samples, begun = 0, [], time.monotonic()
    assert process.stdin is not None
    for piece in programme():
        process.stdin.write(piece[: wanted - sent])
        sent += len(piece[: wanted - sent])
        samples.append((sent / wanted, rss_mb(process.pid)))
        if sent >= wanted:
            break
    process.stdin.close()
    process.wait()
    reader.join()
    speed = hours * 3600 / (time.monotonic() - begun)
    return [
        ("fast: exit code", process.returncode, 0),
        ("fast: memory growth, MB", growth_mb(samples), MAX_GROWTH_MB),
        ("fast: memory at the end, MB", samples[-1][1], float("inf")),
        ("fast: beats out of order", counts["out of order"], 0),
        ("fast: times real time", speed, float("inf")),
        ("fast: beats", counts["beat"], float("inf")),
    ]


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


def receive_osc(port: socket.socket, heard: Heard, ended: threading.Event) -> None:
    """Collect beats and states from OSC, each with the moment at which the system had it."""
    while not ended.is_set():
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


def send_music(port: int, seconds: float) -> None:
    """Send music in real time, in odd pieces; reconnected, it goes on where the clock is."""
    rng = np.random.default_rng(2)
    loop = pcm(drums(60 / BPM * 64, BPM))
    begun = time.monotonic()
    reconnect = 0.0
    client: socket.socket | None = None
    sent = 0  # bytes since begun
    while (now := time.monotonic() - begun) < seconds:
        if client is None or now > reconnect:
            if client is not None:
                client.close()
                time.sleep(0.3)
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(f"beattrack-pcm rate={RATE}\n".encode())
            reconnect = now + RECONNECT_EVERY_S
            sent = round((time.monotonic() - begun) * RATE) * 2
        due = round((time.monotonic() - begun) * RATE) * 2
        while sent < due:
            size = min(due - sent, int(rng.integers(1, 1500)))
            at = sent % len(loop)
            part = loop[at : at + size]
            client.sendall(part)
            sent += len(part)
        time.sleep(0.01)
    if client is not None:
        client.close()


def free_port() -> int:
    """Return a TCP port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def live(minutes: float) -> list[tuple[str, float, float]]:
    """Run a show in real time; return (what, value, bound) rows."""
    seconds = minutes * 60
    osc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    osc.bind(("127.0.0.1", 0))
    osc.settimeout(0.2)
    osc.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    pcm_port, os2l_port = free_port(), free_port()
    ended = threading.Event()
    by_osc, by_os2l = Heard(), Heard()
    process = subprocess.Popen(
        [*COMMAND, "--listen", f"tcp://127.0.0.1:{pcm_port}", "--rate", str(RATE),
         "--output", "none", "--output", f"osc://127.0.0.1:{osc.getsockname()[1]}",
         "--output", f"os2l://127.0.0.1:{os2l_port}", "--output", "osc://127.0.0.1:9"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "Listening to" in line:
            break
    threads = [
        threading.Thread(target=receive_osc, args=(osc, by_osc, ended)),
        threading.Thread(target=receive_os2l, args=(os2l_port, by_os2l, ended)),
        threading.Thread(target=lambda: said.extend(process.stderr or [])),
    ]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    player = threading.Thread(target=send_music, args=(pcm_port, seconds))
    player.start()
    samples = []
    while player.is_alive():
        samples.append(((time.monotonic() - begun) / seconds, rss_mb(process.pid)))
        time.sleep(min(5.0, seconds / 40))
    ended_s = time.monotonic()  # what the show says as it ends is no fault
    process.send_signal(signal.SIGINT)
    process.wait(20)
    ended.set()
    for thread in threads:
        thread.join()
    osc.close()
    lost, doubled = by_osc.faults(begun)
    lost_os2l, doubled_os2l = by_os2l.faults(begun)
    late = [
        state
        for at, state in by_osc.states
        if begun + SETTLE_S < at < ended_s and state not in ("locked", "holding")
    ]
    gaps = np.diff([at for at in by_osc.beats if at > begun + SETTLE_S])
    jitter = float(np.percentile(np.abs(gaps - 60 / BPM), 95) * 1e3) if len(gaps) else float("inf")
    print("".join(said[-6:]), end="")
    infinite = float("inf")
    return [
        ("live: exit code", process.returncode - 130, 0),
        ("live: memory growth, MB", growth_mb(samples), MAX_GROWTH_MB),
        ("live: memory at the end, MB", samples[-1][1] or samples[-2][1], infinite),
        ("live: OSC beats", len(by_osc.beats), infinite),
        ("live: OSC beats lost", lost, 0),
        ("live: OSC beats doubled", doubled, 0),
        ("live: OSC gaps, 95th percentile off, ms", jitter, infinite),
        ("live: OS2L deaths", len(by_os2l.dead), infinite),
        ("live: OS2L beats lost while it lived", lost_os2l, 0),
        ("live: OS2L beats doubled", doubled_os2l, 0),
        ("live: states other than locked or holding", len(late), 0),
    ]


def main() -> int:
    """Print the table; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="of audio in the fast part")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the live part")
    parser.add_argument("--short", action="store_true", help="10 minutes of audio and 1 live")
    options = parser.parse_args()
    if options.short:
        options.hours, options.minutes = 1 / 6, 1.0
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    rows = fast(options.hours) if options.hours else []
    rows += live(options.minutes) if options.minutes else []
    table = Table("what", "measured", "bound")
    broken = False
    for what, value, bound in rows:
        bad = value > bound
        broken |= bad
        shown = "" if bound == float("inf") else f"{bound:g}"
        table.add_row(what, f"{value:.4g}", shown, style="red" if bad else None)
    Console(width=100).print(table)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
