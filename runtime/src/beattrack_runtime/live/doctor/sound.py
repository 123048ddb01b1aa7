"""Sound inputs, each opened and listened to, and sound outputs."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from beattrack_runtime import microphone
from beattrack_runtime.errors import BeattrackError, SourceError
from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding
from beattrack_runtime.microphone import MicSource
from beattrack_runtime.portaudio import opening, portaudio, words

RATES = (16000, 22050, 44100, 48000, 96000)  # Hz that are asked of each input
MAX_DEVICES = 16  # inputs that are tried
LISTEN_S = 0.4  # to each of them


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
    found = {d["index"]: _ask_output(sd, d) for d in outputs[:MAX_DEVICES]}
    good = [index for index, finding in found.items() if finding.state == OK]
    if default in good:
        fact = f"click:// plays on output {default}, the default, {len(outputs)} in all"
        return [*found.values(), Finding("sound output", OK, fact)]
    remedy = f"use click://{good[0]}" if good else "see the outputs above"
    return [*found.values(), Finding("sound output", NOTE, "no default output works", remedy)]


def _ask_output(sd: Any, info: dict[str, Any]) -> Finding:
    """Ask whether an output could be opened as click:// does."""
    name, rate = f"output {info['index']}", info["default_samplerate"]
    fact = f"'{info['name']}', {info['max_output_channels']} channels"
    try:
        with opening():
            sd.check_output_settings(info["index"], channels=1, dtype="float32", samplerate=rate)
    except (sd.PortAudioError, ValueError) as error:
        remedy = "plug it in again, or use another"
        return Finding(name, NOTE, f"{fact}: {words(error)}", remedy)
    return Finding(name, OK, f"{fact}, {rate:.0f} Hz, click://{info['index']}")


def _split(sentence: str) -> tuple[str, str]:
    """Return what is wrong and what to do, of a sentence that says both."""
    fact, _, remedy = sentence.rstrip(".").partition(": ")
    return fact, remedy or "plug in a microphone"
