"""Carries out what the command line asked for."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from beattrack_runtime.errors import BeattrackError, printable
from beattrack_runtime.request import Format, LiveInput, Request, check

if TYPE_CHECKING:
    from beattrack.activations import ActivationModel
    from beattrack_runtime.following import StopRequest
    from beattrack_runtime.live.show import Show
    from beattrack_runtime.outputs import Output
    from beattrack_runtime.outputs.lines import Formatter
    from beattrack_runtime.plan import Plan
    from beattrack_runtime.sources import Source
    from beattrack_runtime.terminal import Terminal

# What results are called in a folder, where no song gives them a name.
_STEMS = {"--mic": "microphone", "--stdin": "stdin", "--listen": "network"}

_log = logging.getLogger("beattrack")


def log_to(terminal: Terminal) -> None:
    """Send the program's notes to stderr by way of ``terminal``."""
    from beattrack_runtime.terminal import NoteHandler

    _log.handlers = [NoteHandler(terminal)]
    # Libraries' own warnings, which else go to stderr past the live line and wait for its reader.
    logging.lastResort = NoteHandler(terminal)
    logging.lastResort.setLevel(logging.WARNING)
    _log.setLevel(logging.DEBUG if os.environ.get("BEATTRACK_DEBUG") else logging.INFO)
    _log.propagate = False


class Job:
    """One request, from its checks to its exit code."""

    def __init__(self, request: Request) -> None:
        """Prepare ``request``. Raises MisuseError if it makes no sense."""
        check(request)
        # The heavy modules are imported here, so that --help and misuse answer at once.
        from beattrack_runtime.following import StopRequest
        from beattrack_runtime.outputs.lines import FORMATS
        from beattrack_runtime.terminal import Terminal

        self._request = request
        self._show: Show | None = None
        self._stop: StopRequest = StopRequest()
        self._terminal: Terminal = Terminal(waits=not request.is_live)
        if any(spec.on_stdout for spec in request.show.outputs):
            self._terminal.lend(only=len(request.show.outputs) == 1)
        self._format: Formatter | None = FORMATS.get(request.format.value)
        log_to(self._terminal)

    def run(self) -> int:
        """Track everything and return the exit code."""
        try:
            code = self._run_all()
        finally:
            self._terminal.close()
        try:
            self._terminal.check()
        except BrokenPipeError:
            return self._stop.exit_code or 128 + signal.SIGPIPE
        return code

    def _run_all(self) -> int:
        from beattrack_runtime.plan import make_plans
        from beattrack_runtime.session import load_model

        request = self._request
        self._stop.install()
        inputs = request.inputs
        stems = [path.stem for path in request.files] or [_STEMS[request.live.kind]]
        plans = make_plans(stems, request.wanted, inputs)
        model = load_model(request.model)
        request.show.decoder(model.decoder)  # raises what it must before anything is opened
        if not request.show.outputs:
            return self._run(model, plans)
        from beattrack_runtime.live.setup import open_show

        with contextlib.closing(open_show(request.show)) as self._show:
            code = self._run(model, plans)
        return code or int(not self._show.complete)

    def _run(self, model: ActivationModel, plans: list[Plan]) -> int:
        """Track every stream and return the exit code."""
        request = self._request
        if request.live.kind:
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

        source = FileSource(path)
        with contextlib.closing(source):
            if len(self._request.files) > 1:
                self._headline(path)
            return self._track(model, source, plan)

    def _listen(self, model: ActivationModel, plan: Plan) -> bool:
        """Track live sound; return whether all its results were written."""
        source = _open_live(self._request.live)
        with contextlib.closing(source):
            channels = {1: "mono", 2: "stereo"}.get(source.channels, f"{source.channels} channels")
            _log.info(
                "Listening to '%s' at %d Hz in %s; Ctrl-C ends.",
                source.name, source.sample_rate, channels,
            )  # fmt: skip
            return self._track(model, source, plan)

    def _track(self, model: ActivationModel, source: Source, plan: Plan) -> bool:
        from beattrack_runtime.following import follow
        from beattrack_runtime.session import LiveTracker

        decoder = self._request.show.decoder(model.decoder)
        tracker = LiveTracker(model, source.sample_rate, decoder)
        outputs = _open_outputs(plan, source, waits=not self._request.is_live)
        return follow(
            source, tracker, outputs, self._terminal, self._format, self._stop,
            self._request.realtime, self._show,
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


def _open_live(live: LiveInput) -> Source:
    """Open the live source asked for. Raises MisuseError and SourceError."""
    if live.mic:
        from beattrack_runtime.microphone import MicSource

        return MicSource(live.device, live.channel)
    from beattrack_runtime.live.pcm import PcmFormat

    form = PcmFormat(
        48000 if live.rate is None else live.rate,
        1 if live.channels is None else live.channels,
        live.pcm_format or "s16le",
    )
    if live.stdin:
        from beattrack_runtime.live.stdin import StdinSource

        return StdinSource(form, live.channel)
    assert live.listen is not None
    from beattrack_runtime.live.tcp import TcpSource

    return TcpSource(live.listen, form, live.channel)


def _open_outputs(plan: Plan, source: Source, waits: bool) -> list[Output]:
    """Open a stream's results; if one cannot be, none is left behind.

    ``waits``: for those who read pipes. Raises OutputError.
    """
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
                line = beats_line if kind == "beats" else jsonl_line
                outputs.append(LineOutput(path, line, waits))
    except BeattrackError:
        for output in outputs:
            output.abandon()
        raise
    return outputs
