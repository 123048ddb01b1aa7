"""Carries out what the command line asked for."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from beattrack_runtime.errors import BeattrackError, MisuseError, printable

if TYPE_CHECKING:
    from beattrack.activations import ActivationModel
    from beattrack_runtime.following import StopRequest
    from beattrack_runtime.outputs import Output
    from beattrack_runtime.outputs.lines import Formatter
    from beattrack_runtime.plan import Plan
    from beattrack_runtime.sources import Source
    from beattrack_runtime.terminal import Terminal

_log = logging.getLogger("beattrack")


class Format(str, Enum):
    """How events are written to stdout."""

    text = "text"
    jsonl = "jsonl"
    beats = "beats"
    none = "none"


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    files: list[Path]
    mic: bool
    device: str | None
    wanted: dict[str, Path]  # kind of result -> where, as the user wrote it
    realtime: bool
    format: Format
    model: Path | None


class Job:
    """One request, from its checks to its exit code."""

    def __init__(self, request: Request) -> None:
        """Prepare ``request``. Raises MisuseError if it makes no sense."""
        _check(request)
        # The heavy modules are imported here, so that --help and misuse answer at once.
        from beattrack_runtime.following import StopRequest
        from beattrack_runtime.outputs.lines import FORMATS
        from beattrack_runtime.terminal import NoteHandler, Terminal

        self._request = request
        self._stop: StopRequest = StopRequest()
        self._terminal: Terminal = Terminal()
        self._format: Formatter | None = FORMATS.get(request.format.value)
        _log.handlers = [NoteHandler(self._terminal)]
        _log.setLevel(logging.DEBUG if os.environ.get("BEATTRACK_DEBUG") else logging.INFO)
        _log.propagate = False

    def run(self) -> int:
        """Track everything and return the exit code."""
        from beattrack_runtime.plan import make_plans
        from beattrack_runtime.session import load_model

        request = self._request
        self._stop.install()
        inputs = [*request.files, *([request.model] if request.model else [])]
        stems = [path.stem for path in request.files] or ["microphone"]
        plans = make_plans(stems, request.wanted, inputs)
        model = load_model(request.model)
        if request.mic:
            complete = self._listen(model, plans[0])
            return self._stop.exit_code or int(not complete)
        complete = True
        for path, plan in zip(request.files, plans, strict=True):
            try:
                complete &= self._read(model, path, plan)
            except BeattrackError as error:
                if len(plans) == 1:
                    raise
                _log.error("%s", error)
                complete = False
            except Exception as error:  # a fault of ours must not cost the other files
                if len(plans) == 1 or os.environ.get("BEATTRACK_DEBUG"):
                    raise
                _log.error("Unexpected failure with '%s': %s", path, error)
                complete = False
            if self._stop.asked:
                break
        return self._stop.exit_code or int(not complete)

    def _read(self, model: ActivationModel, path: Path, plan: Plan) -> bool:
        """Track one file; return whether all its results were written."""
        from beattrack_runtime.sources import FileSource

        # Played in real time, blocks are as long as the tracker's frames.
        source = FileSource(path, block_s=0.02 if self._request.realtime else 0.1)
        with contextlib.closing(source):
            if len(self._request.files) > 1:
                self._headline(path)
            return self._track(model, source, plan)

    def _listen(self, model: ActivationModel, plan: Plan) -> bool:
        """Track live sound; return whether all its results were written."""
        from beattrack_runtime.microphone import MicSource

        source = MicSource(self._request.device)
        with contextlib.closing(source):
            channels = "stereo" if source.channels == 2 else "mono"
            _log.info(
                "Listening to '%s' at %d Hz in %s; Ctrl-C ends.",
                source.name, source.sample_rate, channels,
            )  # fmt: skip
            return self._track(model, source, plan)

    def _track(self, model: ActivationModel, source: Source, plan: Plan) -> bool:
        from beattrack_runtime.following import follow
        from beattrack_runtime.session import LiveTracker

        tracker = LiveTracker(model, source.sample_rate)
        outputs = _open_outputs(plan, source)
        return follow(
            source, tracker, outputs, self._terminal, self._format, self._stop,
            self._request.realtime,
        )  # fmt: skip

    def _headline(self, path: Path) -> None:
        """Say on stdout which of several files the next events belong to."""
        name = printable(str(path))
        headlines = {
            Format.text: f"== {name} ==",
            Format.beats: f"# {name}",
            Format.jsonl: json.dumps({"type": "file", "file": str(path)}),
        }
        if self._request.format in headlines:
            self._terminal.line(headlines[self._request.format])


def _check(request: Request) -> None:
    """Refuse what makes no sense. Raises MisuseError."""
    if request.files and request.mic:
        raise MisuseError("Give either --file or --mic, not both.")
    if not request.files and not request.mic:
        raise MisuseError("Give --file SONG or --mic; --help shows examples.")
    if request.device is not None and not request.mic:
        raise MisuseError("--device belongs to --mic.")
    if request.realtime and request.mic:
        raise MisuseError("--realtime belongs to --file: live sound is in real time anyway.")
    if request.model is not None and not request.model.is_file():
        raise MisuseError(f"There is no model file '{request.model}'.")


def _open_outputs(plan: Plan, source: Source) -> list[Output]:
    """Open a stream's results; if one cannot be, none is left behind. Raises OutputError."""
    from beattrack_runtime.outputs.click import ClickOutput
    from beattrack_runtime.outputs.lines import LineOutput, beats_line, jsonl_line
    from beattrack_runtime.outputs.plot import PlotOutput

    rate, length = source.sample_rate, source.duration_s
    outputs: list[Output] = []
    try:
        for kind, path in plan.paths.items():
            if kind == "click":
                outputs.append(ClickOutput(path, rate, source.channels, length))
            elif kind == "plot":
                outputs.append(PlotOutput(path, source.name, rate, length))
            else:
                outputs.append(LineOutput(path, beats_line if kind == "beats" else jsonl_line))
    except BeattrackError:
        for output in outputs:
            output.abandon()
        raise
    return outputs
