"""Hours of a live show: memory stays flat, and no beat is lost or doubled when receivers die.

Two parts, each with the command `beattrack` in a process of its own, fed from here:

- fast: hours of raw PCM on stdin, as fast as it goes; songs, silence, noise, changes of tempo.
- live: minutes in real time over TCP, in odd pieces, with reconnections; an OSC receiver, another
  one and an OS2L receiver that die and return, and a port at which nobody listens.

``python benchmarks/soak.py`` takes 2 hours of audio and 15 minutes; ``--short`` takes 10 minutes
and one. It fails (exit code 1) when a bound is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from music import RATE, drums, pcm, programme
from soak_receivers import BPM, Heard, osc_port, receive_os2l, receive_osc

MAX_GROWTH_MB = 2.0
WARM_UP = 0.25  # share of a run after which memory must be flat
RECONNECT_EVERY_S = 25.0  # the TCP client
COMMAND = [sys.executable, "-m", "beattrack_runtime"]


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
    osc, osc_mortal = osc_port(), osc_port()
    pcm_port, os2l_port = free_port(), free_port()
    ended = threading.Event()
    by_osc, by_mortal, by_os2l = Heard(), Heard(), Heard()
    process = subprocess.Popen(
        [*COMMAND, "--listen", f"tcp://127.0.0.1:{pcm_port}", "--rate", str(RATE),
         "--output", "none", "--output", f"osc://127.0.0.1:{osc.getsockname()[1]}",
         "--output", f"osc://127.0.0.1:{osc_mortal.getsockname()[1]}",
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
        threading.Thread(target=receive_osc, args=(osc_mortal, by_mortal, ended, True)),
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
        player.join(min(5.0, seconds / 40))  # no longer than the music: then it is silent
    ended_s = time.monotonic()  # what the show says as it ends is no fault
    process.send_signal(signal.SIGINT)
    process.wait(20)
    ended.set()
    for thread in threads:
        thread.join()
    lost, doubled = by_osc.faults(begun)
    lost_mortal, doubled_mortal = by_mortal.faults(begun)
    lost_os2l, doubled_os2l = by_os2l.faults(begun)
    print("".join(said[-6:]), end="")
    infinite = float("inf")
    return [
        ("live: exit code", process.returncode - 130, 0),
        ("live: memory growth, MB", growth_mb(samples), MAX_GROWTH_MB),
        ("live: memory at the end, MB", samples[-1][1] or samples[-2][1], infinite),
        ("live: OSC beats", len(by_osc.beats), infinite),
        ("live: OSC beats lost", lost, 0),
        ("live: OSC beats doubled", doubled, 0),
        ("live: OSC gaps, 95th percentile off, ms", by_osc.jitter_ms(begun), infinite),
        ("live: deaths of another OSC receiver", len(by_mortal.dead), infinite),
        ("live: its beats lost while it lived", lost_mortal, 0),
        ("live: its beats doubled", doubled_mortal, 0),
        ("live: its returns without being told the state", by_mortal.untold(ended_s), 0),
        ("live: OS2L deaths", len(by_os2l.dead), infinite),
        ("live: OS2L beats lost while it lived", lost_os2l, 0),
        ("live: OS2L beats doubled", doubled_os2l, 0),
        ("live: states other than locked or holding", by_osc.unlocked(begun, ended_s), 0),
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
