"""What a run was computed with: versions, machine, command, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("beattrack", "beattrack-trainer", "torch", "natten", "lightning", "numpy", "wandb")


def describe(command: list[str] | None = None) -> dict[str, Any]:
    """Return plain JSON types; nothing that names the machine's user or network."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv if command is None else command,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "gpus": gpus,
            "cuda": torch.version.cuda,
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit of the code, in an image that of its build; empty where none is known."""
    if built := os.environ.get("BEATTRACK_COMMIT"):
        return built
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
