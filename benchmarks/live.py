"""How well live outputs keep time: real songs in real time, real receivers, annotated beats.

    python benchmarks/live.py FOLDER [--songs NAME ...] [--seconds 30] [--begin 0] [--mic]

FOLDER holds songs with annotations beside them (song.ogg, song.beats: time<TAB>position). Each song
is played to the command `beattrack` as a microphone would, and all outputs run at once, each to a
receiver in a process of its own that uses the protocol's own library (receivers.py). What counts is
the moment at which a receiver has a beat, by the clock that all processes share. The song's own
time is known from the command: with --file it says when the first sample was due; with --mic it is
fed through a virtual sound card (PulseAudio) from here.

Where the system allows it, command and receivers run at real-time priority: the figures then hold
on a busy machine as well.

Reported for each song and output: median and 95th percentile of |received - annotated| from the
first lock on, the share of beats within 70 ms, the share of annotated beats from then on that were
received within 70 ms, how long after its first sample the clock locked, and for MIDI the jitter of
the clock ticks' intervals against a smooth tempo (the median of 49).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

HERE = Path(__file__).parent
NEAR_S = 0.07  # a beat farther from every annotated one is another beat, not a late one
WINDOW = 49  # intervals of MIDI clock, two beats, over which the tempo is smooth
RATE = 48000  # of the virtual microphone


def free_port(kind: int) -> int:
    """Return a port that nobody uses."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Receiver:
    """One of receivers.py, in its process."""

    def __init__(self, kind: str, address: object = "0") -> None:
        """Start it and wait until it is ready."""
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "receivers.py"), kind, str(address)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        while not self.lines and self._process.poll() is None:
            time.sleep(0.01)
        self.ready = self.lines.pop(0)["ready"] if self.lines else None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._thread.join(5)


@dataclass
class Heard:
    """What one output's receiver got."""

    output: str
    beats: NDArray[np.float64]  # s of the song
    clocks: NDArray[np.float64]  # MIDI clock ticks, s of the song


class Performance:
    """One song through the command with all outputs."""

    def __init__(self, song: Path, excerpt: Path, mic: Any, folder: Path) -> None:
        """Start the receivers."""
        osc, web, os2l = (free_port(k) for k in (socket.SOCK_DGRAM, *[socket.SOCK_STREAM] * 2))
        self.song, self.excerpt, self.mic = song, excerpt, mic
        self.receivers = {
            "osc": Receiver("osc", osc),
            "midi": Receiver("midi", folder / "midi"),
            "serial": Receiver("serial"),
            "os2l": Receiver("os2l", os2l),
            "web": Receiver("web", web),
            "link": Receiver("link"),
        }
        self.outputs = [
            f"osc://127.0.0.1:{osc}", f"midi://{folder / 'midi'}", f"os2l://127.0.0.1:{os2l}",
            f"serial://{self.receivers['serial'].ready}", f"web://127.0.0.1:{web}",
        ]  # fmt: skip
        if self.receivers["link"].ready:
            self.outputs.append("link://")

    def run(self) -> list[Heard]:
        """Play it; return what was received, in seconds of the song."""
        source = ["--mic"] if self.mic else ["--file", str(self.excerpt), "--realtime"]
        command = [sys.executable, "-m", "beattrack_runtime", *source, "--output", "none"]
        for output in self.outputs:
            command += ["--output", output]
        environment = dict(self.mic.environment if self.mic else os.environ)
        environment["BEATTRACK_DEBUG"] = "1"
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
        )
        assert process.stderr is not None
        began = self._play(process) if self.mic else None
        said = process.stderr.read()
        process.wait()
        found = re.search(r"stream time 0 is (\d+\.\d+)", said)
        if began is None:
            if found is None:
                sys.exit(f"error: {self.song.name}: {said.strip()}")
            began = float(found[1])
        time.sleep(0.3)
        for receiver in self.receivers.values():
            receiver.close()
        return [self._heard(kind, began) for kind in self.receivers]

    def _play(self, process: subprocess.Popen[str]) -> float:
        """Feed the virtual microphone; return when the first sample went in."""
        audio, rate = soundfile.read(self.excerpt, dtype="float32", always_2d=True)
        assert rate == RATE
        assert process.stderr is not None
        for line in process.stderr:
            if "Listening" in line:
                break
        time.sleep(0.5)
        stop = threading.Event()
        player = threading.Thread(target=self.mic.play, args=(audio.mean(axis=1), stop))
        player.start()
        time.sleep(len(audio) / RATE)
        process.send_signal(signal.SIGINT)
        stop.set()
        player.join()
        return float(self.mic.began_s)

    def _heard(self, kind: str, began: float) -> Heard:
        lines = self.receivers[kind].lines
        clocks: list[float] = []
        if kind == "osc":
            beats = [li["at"] for li in lines if li["address"].endswith("/beat")]
        elif kind == "midi":
            beats = [li["at"] for li in lines if li["message"] == "note_on"]
            clocks = [li["at"] for li in lines if li["message"] == "clock"]
        elif kind == "web":  # the page flashes at the moment that it was told
            beats = [max(li["due"], li["at"]) for li in lines if li["type"] == "beat"]
        elif kind == "link":
            # The session's beat: back from when the peer woke by what it says has passed.
            playing = [li for li in lines if li.get("playing")]
            beats = [li["at"] - li["phase"] % 1 * 60 / li["tempo"] for li in playing]
        elif kind == "serial":
            beats = [li["at"] for li in lines if "beat" in li]
        else:
            beats = [li["at"] for li in lines if li.get("evt") == "beat"]
        return Heard(kind, np.array(beats) - began, np.array(clocks) - began)


def jitter_ms(clocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each interval of MIDI clock is from the median of those around it, ms."""
    intervals = np.diff(clocks)
    if len(intervals) < WINDOW:
        return np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(intervals, WINDOW)
    smooth = np.median(windows, axis=1)
    middle = intervals[WINDOW // 2 : WINDOW // 2 + len(smooth)]
    steady = np.abs(windows / smooth[:, None] - 1).max(axis=1) < 0.5 + 0.02 / smooth  # no pause
    return np.asarray(1e3 * np.abs(middle - smooth)[steady])


def errors_s(beats: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each beat to the nearest annotated one, s."""
    return np.array([float(np.abs(truth - beat).min()) for beat in beats])


def given_s(beats: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each annotated beat to the nearest given one, from its first on, s."""
    wanted = truth[truth > beats[0] - NEAR_S] if len(beats) else truth[:0]
    return errors_s(wanted, beats)


def table(name: str, rows: list[tuple[str, NDArray[np.float64], NDArray[np.float64], str]]) -> None:
    """Print a line for each output: distances of its beats, of the annotated ones, and more."""
    for output, errors, gaps, more in rows:
        if not len(errors):
            print(f"{name:28.28s} {output:7s} nothing received", flush=True)
            continue
        near = errors[errors <= NEAR_S]
        on_beat = (
            f"median {1e3 * np.median(near):5.1f}  95% {1e3 * np.percentile(near, 95):5.1f} ms"
            if len(near) else "none on the beat"
        )  # fmt: skip
        print(
            f"{name:28.28s} {output:7s} {len(errors):5d} beats, all: median "
            f"{1e3 * np.median(errors):5.1f}  95% {1e3 * np.percentile(errors, 95):6.1f} ms; "
            f"{len(near) / len(errors):4.0%} within 70 ms: {on_beat}; "
            f"{np.mean(gaps <= NEAR_S):4.0%} of the annotated{more}",
            flush=True,
        )


def main() -> None:
    """Play the songs and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--songs", nargs="*", help="their stems; all unless given")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--begin", type=float, default=0.0, help="of the excerpt, s")
    parser.add_argument("--mic", action="store_true", help="through a virtual sound card")
    options = parser.parse_args()
    songs = [
        song
        for song in sorted(options.folder.iterdir())
        if song.suffix != ".beats" and song.with_suffix(".beats").is_file()
        if not options.songs or song.stem in options.songs
    ]
    if not songs:
        sys.exit(f"error: no songs with .beats beside them in '{options.folder}'")
    together: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    jitters, locks = [], []
    for song in songs:
        with tempfile.TemporaryDirectory() as name:
            found, truth = play(song, options, Path(name))
        rows = []
        for heard in found:
            beats = heard.beats[(heard.beats > truth[0] - 0.1) & (heard.beats < truth[-1] + 0.1)]
            errors, gaps = errors_s(beats, truth), given_s(beats, truth)
            together.setdefault(heard.output, []).append((errors, gaps))
            more = ""
            jitter = jitter_ms(heard.clocks)
            if len(jitter):
                jitters.append(jitter)
                middle, most = np.percentile(jitter, (50, 95))
                more = f"; clock jitter median {middle:.2f}, 95% {most:.2f} ms"
            if heard.output == "osc" and len(beats):
                locks.append(float(beats[0]))
                more = f"; first beat after {beats[0]:.1f} s"
            rows.append((heard.output, errors, gaps, more))
        table(song.stem, rows)
    print()
    table(
        "all songs",
        [(k, *(np.concatenate(part) for part in zip(*v, strict=True)), "")
         for k, v in together.items()],
    )  # fmt: skip
    if jitters:
        jitter = np.concatenate(jitters)
        parts = [f"{p} % {np.percentile(jitter, p):.2f}" for p in (50, 95, 99, 99.9)]
        print(f"MIDI clock jitter: {', '.join(parts)} ms")
    if locks:
        print(f"first beat after: median {np.median(locks):.1f} s, latest {max(locks):.1f} s")


def play(
    song: Path, options: argparse.Namespace, folder: Path
) -> tuple[list[Heard], NDArray[np.float64]]:
    """Play an excerpt; return what was heard and the annotated beats, s of the excerpt."""
    info = soundfile.info(song)
    start = round(options.begin * info.samplerate)
    audio, rate = soundfile.read(
        song, start=start, frames=round(options.seconds * info.samplerate), always_2d=True
    )
    if options.mic:
        from beattrack_runtime.resample import StreamResampler

        if rate != RATE:
            resampler = StreamResampler(rate, RATE)
            mono = resampler.push(audio.mean(axis=1).astype(np.float32))
            audio, rate = mono[round(resampler.delay_s * RATE) :, None], RATE
    excerpt = folder / "excerpt.wav"
    soundfile.write(excerpt, audio, rate)
    truth = np.loadtxt(song.with_suffix(".beats"), usecols=0, ndmin=1) - options.begin
    truth = truth[(truth >= 0) & (truth < len(audio) / rate)]
    if not options.mic:
        return Performance(song, excerpt, None, folder).run(), truth
    sys.path.insert(0, str(HERE.parent / "tests"))
    with importlib.import_module("virtual_mic").sound_server(folder) as mic:
        return Performance(song, excerpt, mic, folder).run(), truth


if __name__ == "__main__":
    main()
