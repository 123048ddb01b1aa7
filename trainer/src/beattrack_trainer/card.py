"""The card that goes with an exported model: what it is, what it was made from, how good it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beattrack_runtime.onnx_model import OnnxModel
from beattrack_trainer.training.runs import Run


def model_card(run: Run, model: OnnxModel, size: int, check: str, results: Path) -> str:
    """Return the card as Markdown.

    Args:
        run: the run.
        model: the exported file, opened.
        size: of the file in bytes.
        check: what parity was checked on, in words.
        results: folder where ``trainer eval`` wrote; scores of this run are quoted from there.
    """
    note = run.note()
    settings, tracks = note["settings"], note["tracks"]
    features, network = model.features, model.config
    licence = model.provenance.get("data_licence") or "not stated; say it with --licence"
    parameters = f"{note['parameters']:,} parameters, " if "parameters" in note else ""
    return f"""# Model card: {run.id}.onnx

Causal {network.model}, {parameters}{size / 1e6:.2f} MB, made with beattrack.

**Input** {features.sample_rate / 1000:g} kHz mono, {features.fps:g} frames a second, \
{network.channels} x {network.bins} bins{_bands(features.sources if features.bpfed else ())}.
**Output** beat, downbeat and tempo ({network.tempo_bins} classes) at every frame, \
{model.latency_frames} frames late.

## How it was made

- Data: {", ".join(settings["data"])}; {_tracks(tracks)}.
- Licence of the data: {licence}.
- Training: fold {settings["fold"]}, {settings["steps"]} steps of {settings["batch_size"]} x \
{settings["frames"]} frames, learning rate {settings["learning_rate"]}, seed {settings["seed"]}. \
All settings: `{run.id}.settings.yaml`.
- When exported: flux_mix {network.flux_mix:g}. Checked against torch on {check}.

## Scores

{_scores(run.id, model, results)}

## Run it

```sh
beattrack --model {run.id}.onnx --file song.mp3
beattrack --model {run.id}.onnx --mic
```
"""


def _bands(sources: tuple[str, ...]) -> str:
    return f" (sub-bands {', '.join(sources)})" if sources else ""


def _tracks(tracks: dict[str, Any]) -> str:
    return ", ".join(f"{count} {part}" for part, count in tracks.items()) + " tracks"


def _same(scored: dict[str, Any], model: OnnxModel) -> bool:
    """Whether the scores are of a file with the same weights and settings."""
    weights = (scored["provenance"].get("weights_sha256"), model.provenance["weights_sha256"])
    settings = (scored["network"], scored["decoder"])
    wanted = (model.config.to_dict(), model.decoder.to_dict())
    return weights[0] == weights[1] and settings == wanted


def _scores(run_id: str, model: OnnxModel, results: Path) -> str:
    """Return a table of what ``trainer eval`` found of this very model, or that it was not run."""
    rows = []
    for file in sorted(results.glob("*/scores.json")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            live, data = found["live"], found["data"]
            if found["model"]["run"] != run_id or not _same(found["model"], model):
                continue
            keys = ("beat_f", "beat_f_emitted", "cmlt", "amlt", "downbeat_f")
            cells = ["-" if live[k] is None else f"{live[k]:.3f}" for k in keys]
            name = data["name"] + (" (TRAINED ON)" if data["seen_in_training"] else "")
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not a result of ours
        rows.append(f"| {name}, {data['part']} | {data['tracks']} | {' | '.join(cells)} |")
    if not rows:
        return f"Not evaluated yet: `trainer eval {run_id}`."
    head = [
        "Through the live path, +-70 ms, first 5 s trimmed (`trainer eval`):",
        "",
        "| Data | tracks | beat F | emitted F | CMLt | AMLt | downbeat F |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(head + rows)
