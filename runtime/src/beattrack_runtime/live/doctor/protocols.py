"""What the live outputs send to: MIDI ports, Ableton Link, serial ports."""

from __future__ import annotations

import importlib
import os
from importlib import metadata
from typing import Any

from beattrack_runtime import microphone
from beattrack_runtime.errors import OutputError
from beattrack_runtime.live.doctor.access import group_remedy
from beattrack_runtime.live.doctor.finding import NOTE, OK, Finding


def check_midi() -> list[Finding]:
    """MIDI ports that --output midi:// can send to."""
    if _module("rtmidi") is None:
        return [Finding("MIDI", NOTE, "python-rtmidi does not load", "install beattrack anew")]
    from beattrack_runtime.live.outputs.midi_ports import port_names

    try:
        ports = port_names()
    except OutputError:
        remedy = "load the module snd-seq" + (
            " on the host, and lend the container /dev/snd" if microphone.in_container() else ""
        )
        fact = "neither ALSA's sequencer (/dev/snd/seq) nor JACK is there; raw devices work without"
        return [Finding("MIDI", NOTE, fact, remedy)]
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
                        group_remedy("dialout"))]  # fmt: skip
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
