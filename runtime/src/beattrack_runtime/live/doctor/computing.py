"""Whether the program runs here in time: processor, execution providers, whole chain, timer."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from beattrack_runtime import __version__
from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding, first_line
from beattrack_runtime.live.show import hurry, relax

FRAME_S = 0.02
STEPS = 200  # of the model, timed
SPEED_S = 4.0  # of sound that the whole chain is timed with
TIMER_S = 0.002  # a wait that ends later than this makes lights and clocks unsteady


def check_program() -> list[Finding]:
    """The program, its Python and the processor."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    python = ".".join(map(str, sys.version_info[:3]))
    fact = f"{__version__}, Python {python}, {platform.machine()}, {cores} cores{load}"
    return [Finding("beattrack", OK, fact)]


def check_providers() -> list[Finding]:
    """The shipped model runs on every local execution provider; the nodes that each really ran."""
    import onnxruntime

    found = []
    for name in onnxruntime.get_available_providers():
        if name == "AzureExecutionProvider":  # calls a remote service; runs nothing here
            continue
        label = name.removesuffix("ExecutionProvider")
        try:
            frame_ms, ran = _time_provider(name)
        except Exception as error:  # each provider has its own errors
            remedy = "--mic runs on the CPU; for a GPU start the container with --runtime nvidia"
            state = BROKEN if label == "CPU" else NOTE
            found.append(Finding(label, state, first_line(error), remedy))
            continue
        mine = ran[name]
        fact = f"{frame_ms:.2f} ms a frame of {FRAME_S * 1e3:.0f} ms"
        if not ran:
            fact += ", operators not counted: no folder for a profile"
        elif not mine:
            remedy = "its libraries do not load: start the container with --runtime nvidia"
            found.append(Finding(label, NOTE, "ran nothing, the CPU ran it instead", remedy))
            continue
        else:
            fact += f", ran {mine} of {ran.total()} operators"
        found.append(Finding(label, OK, fact))
    return found


def _time_provider(name: str) -> tuple[float, Counter[str]]:
    """Return ms a frame and, by provider, how many of the model's operators it ran."""
    from beattrack_runtime.onnx_model import OnnxModel
    from beattrack_runtime.session import STARTER_MODEL

    model = OnnxModel(STARTER_MODEL, providers=[name])
    rng = np.random.default_rng(0)
    shape = (1, model.config.channels, model.config.bins)
    frames = [rng.random(shape, np.float32) for _ in range(STEPS)]
    times = []
    for frame in frames:
        begun = time.perf_counter()
        model.step(frame)
        times.append(time.perf_counter() - begun)
    try:
        return float(np.median(times) * 1e3), _count_operators(name)
    except OSError:  # a read-only file system without /tmp
        return float(np.median(times) * 1e3), Counter()


def _count_operators(name: str) -> Counter[str]:
    """Return, by provider, how many operators ran: what is offered to one, only a profile tells."""
    import onnxruntime

    from beattrack_runtime.session import STARTER_MODEL

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            STARTER_MODEL.read_bytes(), options, providers=[name]
        )
        feeds = {}
        for value in session.get_inputs():
            size = [n if isinstance(n, int) else 1 for n in value.shape]
            dtype = np.int64 if "int64" in value.type else np.float32
            feeds[value.name] = np.zeros(size, dtype)
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(
        e["args"]["provider"] for e in events
        if e.get("cat") == "Node" and e.get("args", {}).get("provider")
    )  # fmt: skip


def check_speed() -> list[Finding]:
    """The whole chain keeps up with the music, with room to spare."""
    from beattrack_runtime.session import open_tracker

    rate = 48000
    tracker = open_tracker(sample_rate=rate)
    size = round(FRAME_S * rate)
    audio = np.random.default_rng(0).normal(0, 0.1, (round(SPEED_S / FRAME_S), size))
    times = []
    for block in audio.astype(np.float32):
        begun = time.perf_counter()
        tracker.push(block)
        times.append(time.perf_counter() - begun)
    median, tail = np.percentile(times[20:], (50, 99)) / FRAME_S
    fact = f"{median:.0%} of real time, the slowest of a hundred frames {tail:.0%}"
    if median > 0.7:
        return [Finding("speed", BROKEN, fact, "end other programs: this machine cannot keep up")]
    if tail > 0.7:
        remedy = "end other programs, or the beat will stutter at times"
        return [Finding("speed", NOTE, fact, remedy)]
    return [Finding("speed", OK, fact)]


def check_timer() -> list[Finding]:
    """A short wait ends on time, as lights and MIDI clocks want it; at a show's priority."""
    late = []
    policy = hurry()
    try:
        for _ in range(150):
            begun = time.monotonic()
            time.sleep(0.001)
            late.append(time.monotonic() - begun - 0.001)
    finally:
        relax(policy)
    tail = float(np.percentile(late, 95))
    fact = (
        f"waits end {np.median(late) * 1e3:.1f} ms late, one in twenty {tail * 1e3:.1f} ms, "
        f"{'with' if policy else 'without'} real-time priority"
    )
    if tail <= TIMER_S:
        return [Finding("timer", OK, fact)]
    remedy = "end other programs, or give this one its own core"
    if policy is None:
        remedy = "allow real-time priority: an rtprio limit of 5 (docs/live.md); or " + remedy
    return [Finding("timer", NOTE, fact, remedy)]
