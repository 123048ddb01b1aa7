"""Container engines and the scripts that make what tests of images need."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "images"
CANNOT = 3  # exit code of these scripts: not on this machine


def script(name: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run one of scripts/images; skip with its words where the machine cannot do it."""
    done = subprocess.run(
        ["bash", str(SCRIPTS / name), *arguments], env=env, stderr=subprocess.PIPE, text=True
    )
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Engine:
    """A container engine that answers."""

    environment: dict[str, str]

    def docker(self, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run docker; whatever it returns, the caller judges."""
        return subprocess.run(
            ["docker", *map(str, arguments)], env=self.environment,
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start docker, its stdout and stderr in pipes."""
        return subprocess.Popen(
            ["docker", *map(str, arguments)], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def value(self, *arguments: object) -> str:
        """Run docker and return its stdout; it must not fail."""
        done = self.docker(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def build(self, dockerfile: str, tag: str, arguments: Sequence[str], timeout: float) -> None:
        """Build an image of the working tree; it must not fail."""
        done = self.docker(
            "build", "--progress", "plain", "--file", ROOT / "docker" / dockerfile, "--tag", tag,
            *arguments, ROOT, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]


def engine_environment() -> dict[str, str]:
    """Return this process's environment with what engine.sh says."""
    command = f'eval "$(bash {SCRIPTS}/engine.sh env 2>/dev/null)"; env -0'
    done = subprocess.run(
        ["bash", "-c", command],
        env={name: value for name, value in os.environ.items() if name != "DOCKER_HOST"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    if "DOCKER_HOST" in os.environ:
        found.setdefault("DOCKER_HOST", os.environ["DOCKER_HOST"])
    return found
