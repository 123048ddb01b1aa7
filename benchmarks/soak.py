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
