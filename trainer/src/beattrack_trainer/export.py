"""A finished run to one ONNX file."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

from beattrack.config import DecoderConfig
from beattrack.export import export_onnx
from beattrack.model import build_model
from beattrack_trainer.training.runs import Run


def export_run(run: Run, out: Path, flux_mix: float, decoder: DecoderConfig, licence: str) -> None:
    """Write a run as ONNX, mixing in ``flux_mix`` of the no-learning flux logit.

    Raises:
        ConfigError: no finished run there, or an impossible setting.
        ValueError: the file does not give the numbers that the network gives.
    """
    network, features, note = run.load()
    mixed = build_model(dataclasses.replace(network.config, flux_mix=flux_mix)).eval()
    mixed.load_state_dict(network.state_dict())
    provenance: dict[str, Any] = {
        "run": run.id,
        "settings": note["settings"],
        "tracks": note["tracks"],
        "data_licence": licence,
        "commit": _commit(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(mixed, features, decoder, out, provenance)


def _commit() -> str:
    """Return the commit of the code, or an empty text outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
