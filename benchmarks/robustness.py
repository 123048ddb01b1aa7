"""What a show does when the sound is no music, breaks off, or becomes another: states and re-lock.

Every case goes through the shipped model, the tracker and the clock as in a live show, but on a
made-up wall clock, so that nothing depends on the machine's speed. Signals are made here, but for
the bundled song. ``--load`` adds a run in real time beside busy processes. It fails (exit code 1)
when a bound is broken; the clapping of few has none: the shipped model takes some of it for music.
"""

from __future__ import annotations

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from pythonosc.osc_message import OscMessage
from rich.console import Console
from rich.table import Table

from beattrack.activations import ActivationModel
from beattrack_runtime.live.clock.ticks import ClockState, ClockStateChange, Tick
from beattrack_runtime.live.delivery import Delivery
from beattrack_runtime.live.health import Health
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.show import Show
from beattrack_runtime.session import LiveTracker, load_model
from music import RATE, drums

SONG = Path(__file__).parents[1] / "runtime" / "demo" / "relaxation_piece.ogg"
SONG_BPM = 120.0
HOP = 441
INFINITE = float("inf")
TEMPO_OFF = 0.04  # share by which a tempo may be off and count as right
ROW = 4  # beats in a row at the right tempo that make a lock

Audio = NDArray[np.float32]


def noise(seconds: float, pink: bool = False) -> Audio:
    """Return white or pink noise at -20 dB."""
    n = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(0, 1, n))
    if pink:
        spectrum /= np.sqrt(np.maximum(1, np.arange(len(spectrum))))
    return _at_level(np.fft.irfft(spectrum, n))


def applause(seconds: float, claps_a_second: float) -> Audio:
    """Return claps at random: bursts of noise, 3 ms long, of unequal strength."""
    rng = np.random.default_rng(0)
    n = round(seconds * RATE)
    audio = np.zeros(n + RATE)
    clap = np.exp(-np.arange(round(0.012 * RATE)) / (0.003 * RATE))
    for at in rng.uniform(0, n, round(claps_a_second * seconds)).astype(int):
        audio[at : at + len(clap)] += rng.normal(0, 1, len(clap)) * clap * rng.uniform(0.2, 1)
    return _at_level(audio[:n])


def speech(seconds: float) -> Audio:
    """Return syllables of uneven length and pitch with pauses: a voice's rhythm, without words."""
    rng = np.random.default_rng(0)
    n = round(seconds * RATE)
    audio = np.zeros(n + RATE)
    at = 0.0
    while at < seconds:
        length = rng.uniform(0.08, 0.25)
        t = np.arange(round(length * RATE)) / RATE
        pitch = rng.uniform(90, 160)
        voiced = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 18))
        sound = rng.normal(0, 0.5, len(t)) if rng.random() < 0.3 else voiced
        audio[round(at * RATE) : round(at * RATE) + len(t)] += sound * np.hanning(len(t))
        at += length * rng.uniform(0.9, 1.4) + (rng.random() < 0.12) * rng.uniform(0.2, 0.7)
    return _at_level(audio[:n])


def song(start_s: float, end_s: float) -> Audio:
    """Return a part of the bundled song at RATE, half its own."""
    audio, rate = soundfile.read(
        SONG, start=round(start_s * 2 * RATE), stop=round(end_s * 2 * RATE), always_2d=True
    )
    assert rate == 2 * RATE
    return np.asarray(audio.mean(axis=1).reshape(-1, 2).mean(axis=1), np.float32)


def silence(seconds: float) -> Audio:
    """Return zeros."""
    return np.zeros(round(seconds * RATE), np.float32)


def _at_level(audio: NDArray[np.float64]) -> Audio:
    return np.asarray(0.1 * audio / audio.std(), np.float32)


class _Source:
    """What a show wants to know of a source."""

    name, sample_rate, channels, duration_s, overruns, note = "made up", RATE, 1, None, 0, ""


class _Nowhere:
    """An output that takes everything and keeps it."""

    name, ahead_s, beats_only = "nowhere", 0.0, False

    def open(self) -> None: ...
    def send(self, due: Due) -> None: ...
    def close(self) -> None: ...


class _Kept(Delivery):
    """Keeps what is put in; nothing waits, nothing is sent."""

    def __init__(self) -> None:
        super().__init__(_Nowhere(), 0.0)
        self.now_s = 0.0
        self.kept: list[tuple[float, Tick | ClockStateChange]] = []  # and when it was put in

    def put(self, what: object, at_s: float) -> None:
        if isinstance(what, Tick | ClockStateChange):
            self.kept.append((self.now_s, what))


@dataclass
class Course:
    """What the clock did in one case."""

    ticks: list[Tick]
    changes: list[ClockStateChange]
    given_s: list[float]  # when each tick was given, seconds of the stream

    @property
    def beats(self) -> list[Tick]:
        """The whole beats."""
        return [tick for tick in self.ticks if tick.tick == 0]

    def beats_between(self, start_s: float, end_s: float) -> list[Tick]:
        """Return the beats of a stretch of time."""
        return [beat for beat in self.beats if start_s <= beat.time_s < end_s]

    def lock_s(self, since_s: float, bpm: float) -> float:
        """Return how long after ``since_s`` beats come at the tempo, or double or half of it."""
        row = 0
        for beat in self.beats:
            ratio = beat.tempo_bpm / bpm
            good = min(abs(ratio / level - 1) for level in (0.5, 1.0, 2.0)) < TEMPO_OFF
            row = row + 1 if good and beat.time_s >= since_s else 0
            if row == 1:
                first_s = beat.time_s
            if row == ROW:
                return first_s - since_s
        return INFINITE

    def state_s(self, state: ClockState, since_s: float) -> float:
        """Return how long after ``since_s`` the clock came into ``state``."""
        times = [c.time_s for c in self.changes if c.state is state and c.time_s >= since_s]
        return times[0] - since_s if times else INFINITE

    def text(self) -> str:
        """Return the states with their times."""
        return ", ".join(f"{c.time_s:.1f} {c.state.value}" for c in self.changes) or "searching"


def play(
    audio: Audio, model: ActivationModel, stall: tuple[float, float] = (INFINITE, 0.0)
) -> Course:
    """Put audio through tracker and clock as a show does; [n] at RATE.

    ``stall``: after so many seconds no audio comes for so long, and then silence for it at once.
    """
    tracker = LiveTracker(model, RATE)
    tracker.reset()  # the model may have heard something before
    show = Show([])
    kept = _Kept()
    show.deliveries = [kept]
    source = _Source()
    show.begin(source, tracker, Health(source))  # type: ignore[arg-type]
    tracker.on_frame = show.frame
    stall_s, gap_s = stall
    for start in range(0, len(audio), HOP):
        if start / RATE >= stall_s:
            for at_s in np.arange(stall_s, stall_s + gap_s, 0.03):
                kept.now_s = float(at_s)
                show.step(np.zeros((0, 1), np.float32), [], 1000 + kept.now_s)
            gap = np.zeros((round(gap_s * RATE), 1), np.float32)
            kept.now_s = stall_s + gap_s
            show.step(gap, tracker.push(gap), 1000 + kept.now_s)
            stall_s = INFINITE
        block = audio[start : start + HOP, None]
        events = tracker.push(block)
        kept.now_s = tracker.time_s
        show.step(block, events, 1000 + tracker.time_s)
    show.deliveries = []  # it ends here: what it would say at its end is none of the case
    show.close()
    given = [(at, what) for at, what in kept.kept if isinstance(what, Tick)]
    changes = [what for _, what in kept.kept if isinstance(what, ClockStateChange)]
    return Course([tick for _, tick in given], changes, [at for at, _ in given])


def cases(seconds: float, model: ActivationModel) -> list[tuple[str, str, float, float]]:
    """Return (case, states, measured, bound) rows; ``seconds``: length of what is no music."""
    rows: list[tuple[str, str, float, float]] = []
    for what, audio, bound in (
        ("white noise", noise(seconds), 0.0),
        ("pink noise", noise(seconds, pink=True), 0.0),
        ("silence", silence(seconds), 0.0),
        ("applause, 20 claps/s", applause(seconds, 20), INFINITE),
        ("applause, 300 claps/s", applause(seconds, 300), 0.0),
        ("speech", speech(seconds), 0.0),
    ):
        course = play(audio, model)
        rows.append((f"{what}: beats in {seconds:.0f} s", course.text(), len(course.beats), bound))
    course = play(drums(10, 124), model)
    rows.append(("steady drums: lock, s", course.text(), course.lock_s(0, 124), 4.0))
    course = play(np.concatenate([song(0, 15), silence(6), song(20, 30)]), model)
    text = course.text()
    rows.append(("song stops: silent after, s", text, course.state_s(ClockState.SILENT, 15), 3.0))
    still = len(course.beats_between(18, 21))
    rows.append(("song stops: beats 3 to 6 s after", "", still, 0.0))
    rows.append(("song again: re-lock, s", "", course.lock_s(21, SONG_BPM), 4.0))
    for what, first, second, bpm in (
        ("tempo 100 to 130", drums(12, 100), drums(12, 130), 130.0),
        ("tempo 140 to 90", drums(12, 140), drums(12, 90), 90.0),
        ("song to drums at 93", song(0, 15), drums(12, 93), 93.0),
        ("drums at 93 to song", drums(12, 93), song(20, 34), SONG_BPM),
    ):
        course = play(np.concatenate([first, second]), model)
        found = course.lock_s(len(first) / RATE, bpm)
        rows.append((f"{what}: re-lock, s", course.text(), found, 8.0))
    audio = np.concatenate([song(0, 15), applause(10, 100), song(20, 34)])
    course = play(audio, model)
    rows.append(
        ("song, applause, song: re-lock, s", course.text(), course.lock_s(25, SONG_BPM), 8.0)
    )
    return rows


def under_load(seconds: float, busy: int) -> float:
    """Return the 95th percentile, ms, of how unevenly OSC beats come beside busy processes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.5)
        spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        command = [sys.executable, "-m", "beattrack_runtime", "--file", str(SONG), "--realtime"]
        address = f"osc://127.0.0.1:{receiver.getsockname()[1]}"
        command += ["--output", "none", "--output", address]
        show = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        times: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = OscMessage(receiver.recv(4096))
            except TimeoutError:
                continue
            if message.address == "/beattrack/beat":
                times.append(time.monotonic())
        for process in (show, *spin):
            process.kill()
            process.wait()
    gaps = np.diff(times[4:])
    uneven = np.abs(gaps - np.median(gaps))
    return float(np.percentile(uneven, 95) * 1e3) if len(gaps) > 3 else INFINITE


def main() -> int:
    """Print the table; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each noise")
    parser.add_argument("--load", type=float, default=0.0, help="seconds beside busy processes")
    options = parser.parse_args()
    rows = cases(options.seconds, load_model())
    if options.load:
        for busy in (0, os.cpu_count() or 1, 2 * (os.cpu_count() or 1)):
            uneven = under_load(options.load, busy)
            rows.append((f"{busy} busy processes: OSC beats uneven, ms", "", uneven, INFINITE))
    table = Table("case", "states", "measured", "bound")
    broken = False
    for what, text, value, bound in rows:
        bad = value > bound
        broken |= bad
        shown = "" if bound == INFINITE else f"{bound:g}"
        table.add_row(what, text, f"{value:.3g}", shown, style="red" if bad else None)
    Console(width=110).print(table)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
