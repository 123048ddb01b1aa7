"""What this user, or this container, may open, and how it is allowed to open more."""

from __future__ import annotations

import contextlib
import grp
import os

from beattrack_runtime import microphone
from beattrack_runtime.live.doctor.finding import NOTE, OK, Finding

PULSE_REMEDY = "or share the host's PulseAudio (docs/jetson.md)"


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
        return [Finding("permissions", NOTE, fact, group_remedy("audio"))]
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


def group_remedy(group: str) -> str:
    """Return how this user comes into a group of the system."""
    if microphone.in_container():
        return f"start it with --group-add {group}"
    return f"sudo usermod -aG {group} $USER, then log in again"
