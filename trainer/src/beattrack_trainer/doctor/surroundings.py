"""What the trainer finds around it: interpreter, programs, account, memory, folders, user."""

from __future__ import annotations

import netrc
import os
import pwd
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding

SHM_ADVISED = 1 << 30  # bytes; batches go through shared memory when workers prepare them
DISK_ADVISED = 5 << 30  # bytes
FOLDERS = ("data", "runs")  # under the working folder, unless settings name others


def check_python() -> Finding:
    """The interpreter is one that the packages are made for."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Finding("Python", OK if fits else BROKEN, version, "use Python 3.10, 3.11 or 3.12")


def check_rendering() -> Finding:
    """FluidSynth, MMA and soundfonts, which ``trainer synth`` renders with."""
    from beattrack_trainer.synth.arrange import check_soundfonts

    missing = [p for p in ("fluidsynth", "mma") if not shutil.which(p)]
    for program in ("fluidsynth", "mma"):
        if program not in missing and not _starts(program):
            missing.append(program)
    try:
        fonts = [p.stem for p in check_soundfonts(None)]
    except ValueError:
        fonts, missing = [], [*missing, "timgm6mb-soundfont"]
    if missing:
        return Finding("synth", NOTE, f"cannot render: {', '.join(missing)} missing",
                       f"sudo apt-get install {' '.join(missing)}")  # fmt: skip
    return Finding("synth", OK, f"FluidSynth, MMA, soundfonts {', '.join(fonts)}")


def _starts(program: str) -> bool:
    options = {"fluidsynth": "--version", "mma": "-v"}
    try:
        done = subprocess.run(
            [program, options[program]], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def check_wandb() -> Finding:
    """Where Weights & Biases would send metrics; the key itself is never shown."""
    try:
        version = metadata.version("wandb")
    except metadata.PackageNotFoundError:
        return Finding(
            "W&B", NOTE, "wandb is not installed: metrics stay in runs/", "install wandb"
        )
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rpartition("/")[2]
    if os.environ.get("WANDB_API_KEY"):
        return Finding("W&B", OK, f"{version}, key from WANDB_API_KEY")
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        known = netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        known = False
    if known:
        return Finding("W&B", OK, f"{version}, key from {file}")
    return Finding("W&B", NOTE, f"{version}, no account: runs stay offline",
                   "set WANDB_API_KEY to send them")  # fmt: skip


def check_shared_memory() -> Finding:
    """/dev/shm holds the batches of worker processes; containers get 64 MB unless told."""
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Finding("/dev/shm", NOTE, "there is none", "train with workers=0")
    fact = f"{size / 1e9:.2f} GB"
    if size < SHM_ADVISED:
        remedy = "shm_size in compose.yaml, docker run --shm-size=4g, or workers=0"
        return Finding("/dev/shm", NOTE, fact, remedy)
    return Finding("/dev/shm", OK, fact)


def check_folders() -> Finding:
    """Runs must be writable; data need not be, once its features are there. Space is counted."""
    here = Path.cwd()
    states = {name: _writable(here / name) for name in FOLDERS}
    free = shutil.disk_usage(here).free
    fact = ", ".join(f"{n}/ {'writable' if w else 'read-only'}" for n, w in states.items())
    fact += f", {free / 1e9:.0f} GB free"
    if not states["runs"]:
        remedy = f"let uid {os.geteuid()} write {here / 'runs'}, or set runs_dir"
        return Finding("folders", BROKEN, fact, remedy)
    if not states["data"]:
        remedy = "training works; to preprocess, set path_no_demixed_feature_dir to another place"
        return Finding("folders", NOTE, fact, remedy)
    if free < DISK_ADVISED:
        remedy = "make room: features take about 15 MB for an hour of music"
        return Finding("folders", NOTE, fact, remedy)
    return Finding("folders", OK, fact)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or, if it is not there yet, whether it can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def check_user() -> Finding:
    """Who runs this, and whether files will belong to the owner of the working folder."""
    uid, owner = os.geteuid(), Path.cwd().stat().st_uid
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "without a name, which is no harm"
    fact = f"uid {uid} ({name}), working folder of uid {owner}"
    if uid in (0, owner) or _writable(Path.cwd()):
        return Finding("user", OK, fact)
    remedy = f"run as uid {owner}: in compose, a line UID={owner} in the file .env (docs/images.md)"
    return Finding("user", NOTE, fact, remedy)
