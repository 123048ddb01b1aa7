"""What this machine has for a live show, found by trying it, and what to do where it lacks."""

from __future__ import annotations

import contextlib
import grp
import importlib
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from beattrack_runtime import __version__, microphone
from beattrack_runtime.errors import BeattrackError, SourceError
from beattrack_runtime.live.show import hurry, relax
from beattrack_runtime.microphone import MicSource
from beattrack_runtime.portaudio import opening, portaudio, words
from beattrack_runtime.quiet import quiet_libraries

OK, NOTE, BROKEN = "ok", "note", "broken"  # note: --mic works, something else does not
RATES = (16000, 22050, 44100, 48000, 96000)  # Hz that are asked of each input
MAX_DEVICES = 16  # inputs that are tried
LISTEN_S = 0.4  # to each of them
FRAME_S = 0.02
STEPS = 200  # of the model, timed
SPEED_S = 4.0  # of sound that the whole chain is timed with
TIMER_S = 0.002  # a wait that ends later than this makes lights and clocks unsteady
PULSE_REMEDY = "or share the host's PulseAudio (docs/jetson.md)"


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``note`` (--mic works, something else not) or ``broken``."""

    name: str
    state: str
    fact: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Carry out every check; return what they found, in the order to be read.

    A check that fails in a way it does not know is itself a finding; none stops the others.
    """
    found: list[Finding] = []
    for check in CHECKS:
        try:
            with quiet_libraries(), _quiet_log():
                found += check()
        except Exception as error:  # whatever a damaged installation throws is the finding
            name = check.__name__.removeprefix("check_").replace("_", " ")
            state = BROKEN if check in NEEDED else NOTE
            found.append(Finding(name, state, _line(error), "install beattrack anew"))
    return found


def report(found: list[Finding]) -> str:
    """Return the findings as text: a line each, and a remedy below what is not ok."""
    lines = []
    for finding in found:
        lines.append(f"{finding.state:<7}{finding.name:<14}{finding.fact}")
        if finding.state != OK:
            lines.append(f"{'':<21}-> {finding.remedy}")
    return "\n".join(lines)


def report_json(found: list[Finding]) -> str:
    """Return the findings as one line of JSON; ``mic``: whether --mic can work."""
    findings = [asdict(finding) for finding in found]
    mic = can_listen(found)
    return json.dumps({"type": "doctor", "version": __version__, "mic": mic, "findings": findings})


def can_listen(found: list[Finding]) -> bool:
    """Whether --mic can work here."""
    return all(finding.state != BROKEN for finding in found)


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the warnings of what is tried out of the report."""
    log = logging.getLogger("beattrack")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


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
            found.append(Finding(label, state, _line(error), remedy))
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


def check_microphones() -> list[Finding]:
    """Every input, opened and listened to for a moment, and the rates that it takes."""
    try:
        with opening():
            sd = portaudio()
            inputs = [d for d in sd.query_devices() if d["max_input_channels"] > 0]
            default = microphone.find(sd, None)["index"]
    except SourceError as error:
        return [Finding("--mic", BROKEN, *_split(str(error)))]
    found, works = [], {}
    for info in inputs[:MAX_DEVICES]:
        finding = _try_input(sd, info)
        works[info["index"]] = finding.state == OK
        found.append(finding)
    others = [index for index, good in works.items() if good]
    if works.get(default):
        found.append(Finding("--mic", OK, f"hears input {default}, the default"))
    elif others:
        remedy = f"use --mic --device {others[0]}"
        found.append(Finding("--mic", NOTE, "the default input does not work", remedy))
    else:
        found.append(Finding("--mic", BROKEN, "no input works", "see the inputs above"))
    return found


def _try_input(sd: Any, info: dict[str, Any]) -> Finding:
    """Open one input as --mic does, listen for a moment, and ask which rates it takes."""
    name = f"input {info['index']}"
    try:
        with contextlib.closing(MicSource(str(info["index"]))) as source:
            end = time.monotonic() + LISTEN_S
            heard, peak = 0, 0.0
            for block in source.blocks():
                heard += len(block)
                peak = max(peak, float(np.abs(block).max(initial=0)))
                if time.monotonic() > end:
                    break
    except BeattrackError as error:
        busy = "busy" in str(error) or "unavailable" in str(error)
        remedy = "another program has it: end that" if busy else "plug it in again, or use another"
        return Finding(name, NOTE, f"'{info['name']}': {error}", remedy)
    rates = []
    for rate in RATES:
        with opening(), contextlib.suppress(sd.PortAudioError):
            sd.check_input_settings(info["index"], channels=1, dtype="float32", samplerate=rate)
            rates.append(rate)
    fact = (
        f"'{info['name']}', {info['max_input_channels']} channels, opened at {source.sample_rate} "
        f"Hz, takes {' '.join(map(str, rates)) or 'no other'}"
    )
    if not heard:
        return Finding(name, NOTE, f"{fact}, gives no sound", "plug it in again, or use another")
    if not peak:
        return Finding(name, OK, f"{fact}, nothing but zeros: is it muted?")
    return Finding(name, OK, f"{fact}, {20 * np.log10(peak):.0f} dB at most")


def check_outputs() -> list[Finding]:
    """Sound outputs, for clicks and for --calibrate."""
    try:
        with opening():
            sd = portaudio()
            outputs = [d for d in sd.query_devices() if d["max_output_channels"] > 0]
    except SourceError as error:
        return [Finding("sound output", NOTE, *_split(str(error)))]
    if not outputs:
        return [Finding("sound output", NOTE, "none", "plug one in to hear clicks")]
    default = sd.default.device[1]
    info = next((d for d in outputs if d["index"] == default), outputs[0])
    try:
        with opening():
            sd.check_output_settings(info["index"], samplerate=info["default_samplerate"])
    except sd.PortAudioError as error:
        fact = f"'{info['name']}': {words(error)}"
        return [Finding("sound output", NOTE, fact, "plug it in again, or choose another")]
    return [Finding("sound output", OK, f"'{info['name']}', {len(outputs)} in all")]


def check_permissions() -> list[Finding]:
    """Whether this user may open the sound devices of the system."""
    folder = microphone.SOUND
    if not folder.is_dir() and os.environ.get("PULSE_SERVER"):
        return [Finding("permissions", OK, "sound comes from the server of PULSE_SERVER")]
    if not folder.is_dir():
        return [Finding("permissions", NOTE, f"there is no {folder}", _sound_remedy())]
    nodes = sorted(folder.glob("pcm*"))
    closed = [node.name for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    groups = _groups()
    member = "in group audio" if "audio" in groups else "not in group audio"
    fact = f"uid {os.geteuid()}, {member}, {len(nodes) - len(closed)} of {len(nodes)} devices"
    if closed:
        return [Finding("permissions", NOTE, fact, _group_remedy("audio"))]
    return [Finding("permissions", OK, fact)]


def check_container() -> list[Finding]:
    """In a container, what its command line has left out."""
    if not microphone.in_container():
        return [Finding("container", OK, "not in one")]
    missing = []
    if not microphone.SOUND.is_dir() and not os.environ.get("PULSE_SERVER"):
        missing.append("--device /dev/snd --group-add audio")
    elif "audio" not in _groups() and os.geteuid() and not os.environ.get("PULSE_SERVER"):
        missing.append("--group-add audio")
    if missing:
        remedy = f"start it with {' '.join(missing)}, {PULSE_REMEDY}"
        return [Finding("container", NOTE, f"without {' '.join(missing)}", remedy)]
    return [Finding("container", OK, "it sees the sound of its host")]


def check_midi() -> list[Finding]:
    """MIDI ports that --output midi:// can send to."""
    rtmidi = _module("rtmidi")
    if rtmidi is None:
        return [Finding("MIDI", NOTE, "python-rtmidi does not load", "install beattrack anew")]
    try:
        ports = rtmidi.MidiOut().get_ports()
    except Exception as error:  # rtmidi has errors of its own for a machine without a sequencer
        remedy = "load the module snd-seq" + (
            " on the host, and lend the container /dev/snd" if microphone.in_container() else ""
        )
        return [Finding("MIDI", NOTE, _line(error), remedy)]
    if not ports:
        return [Finding("MIDI", NOTE, "no port", "plug in a device or start a synthesizer")]
    return [Finding("MIDI", OK, ", ".join(ports))]


def check_link() -> list[Finding]:
    """Ableton Link, whose binding is an extra."""
    if _module("aalink") is None:
        remedy = "pip install aalink"
        return [Finding("Link", NOTE, "aalink is not installed", remedy)]
    return [Finding("Link", OK, f"aalink {metadata.version('aalink')}")]


def check_serial() -> list[Finding]:
    """Serial ports that --output serial:// can send to."""
    ports = _module("serial.tools.list_ports")
    if ports is None:
        return [Finding("serial", NOTE, "pyserial does not load", "install beattrack anew")]
    names = sorted(port.device for port in ports.comports())
    closed = [name for name in names if not os.access(name, os.R_OK | os.W_OK)]
    if closed:
        return [Finding("serial", NOTE, f"may not open {', '.join(closed)}",
                        _group_remedy("dialout"))]  # fmt: skip
    if not names:
        remedy = "plug in an adapter" + (
            ", and start the container with --device /dev/ttyUSB0"
            if microphone.in_container() else ""
        )  # fmt: skip
        return [Finding("serial", NOTE, "no port", remedy)]
    return [Finding("serial", OK, ", ".join(names))]


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _groups() -> set[str]:
    names = set()
    for number in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return names


def _sound_remedy() -> str:
    if microphone.in_container():
        return f"start it with --device /dev/snd --group-add audio, {PULSE_REMEDY}"
    return "plug in a sound card, or load its driver"


def _group_remedy(group: str) -> str:
    if microphone.in_container():
        return f"start it with --group-add {group}"
    return f"sudo usermod -aG {group} $USER, then log in again"


def _split(sentence: str) -> tuple[str, str]:
    """Return what is wrong and what to do, of a sentence that says both."""
    fact, _, remedy = sentence.rstrip(".").partition(": ")
    return fact, remedy or "plug in a microphone"


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:160].rstrip(".") or type(error).__name__


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_program,
    check_providers,
    check_speed,
    check_timer,
    check_microphones,
    check_outputs,
    check_permissions,
    check_container,
    check_midi,
    check_link,
    check_serial,
)
NEEDED = (check_providers, check_speed, check_microphones)  # --mic cannot work without these
