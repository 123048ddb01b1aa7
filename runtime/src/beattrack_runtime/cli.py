"""The `beattrack` command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beattrack_runtime import __version__
from beattrack_runtime.errors import BeattrackError, MisuseError

if TYPE_CHECKING:
    from beattrack.activations import ActivationModel
    from beattrack_runtime.following import StopRequest
    from beattrack_runtime.outputs import Output
    from beattrack_runtime.outputs.lines import Formatter
    from beattrack_runtime.plan import Plan
    from beattrack_runtime.sources import Source
    from beattrack_runtime.terminal import Terminal

# One frame is far too little work to share among threads, and idle BLAS threads would spin
# beside the audio. OpenBLAS reads this when numpy is imported: nothing above imports it.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

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


_EPILOG = """
Examples:

beattrack --file song.mp3

beattrack --file song.mp3 --beats song.beats --click click.wav --plot song.png

beattrack --file a.wav --file b.flac --beats results/

beattrack --list-devices

beattrack --mic --device USB --output jsonl
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"beattrack {__version__}")
        raise typer.Exit


def _print_devices(wanted: bool) -> None:
    if wanted:
        from beattrack_runtime.microphone import list_devices

        print("\n".join(list_devices()))
        raise typer.Exit


@app.command(epilog=_EPILOG, no_args_is_help=False)
def beattrack(
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="SONG", help="Track this audio file; may be repeated."),
    ] = None,
    mic: Annotated[bool, typer.Option("--mic", help="Track live sound until Ctrl-C.")] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME_OR_INDEX", help="Sound input for --mic."),
    ] = None,
    list_devices: Annotated[
        bool,
        typer.Option(
            "--list-devices", callback=_print_devices, is_eager=True, help="List sound inputs."
        ),
    ] = False,
    beats: Annotated[
        Path | None,
        typer.Option("--beats", metavar="OUT", help="Write lines of time<TAB>position."),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option("--jsonl", metavar="OUT", help="Write every event as a line of JSON."),
    ] = None,
    click: Annotated[
        Path | None,
        typer.Option("--click", metavar="OUT.wav", help="Write the sound with clicks on beats."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="OUT.png", help="Draw waveform, activations and beats."),
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play files at their own speed, as if live.")
    ] = False,
    output: Annotated[
        Format, typer.Option("--output", help="Events on stdout; all else is on stderr.")
    ] = Format.text,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL.onnx", help="Use this model, not the shipped one."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print version."),
    ] = False,
) -> None:
    """Track beats, downbeats and tempo in real time, in audio files or live sound.

    With several files, each OUT names a folder, and results are called after the songs.
    """
    given = {"beats": beats, "jsonl": jsonl, "click": click, "plot": plot}
    wanted = {kind: path for kind, path in given.items() if path is not None}
    request = Request(file or [], mic, device, wanted, realtime, output, model)
    _check(request)
    raise typer.Exit(_Job(request).run())


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


class _Job:
    """Runs a request that makes sense."""

    def __init__(self, request: Request) -> None:
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
            self._listen(model, plans[0])
            return self._stop.exit_code
        failed = 0
        for path, plan in zip(request.files, plans, strict=True):
            try:
                self._read(model, path, plan)
            except BeattrackError as error:
                if len(plans) == 1:
                    raise
                _log.error("%s", error)
                failed = 1
            if self._stop.asked:
                break
        return self._stop.exit_code or failed

    def _read(self, model: ActivationModel, path: Path, plan: Plan) -> None:
        """Track one file."""
        from beattrack_runtime.sources import FileSource

        # Played in real time, blocks are as long as the tracker's frames.
        source = FileSource(path, block_s=0.02 if self._request.realtime else 0.1)
        with contextlib.closing(source):
            if len(self._request.files) > 1:
                self._headline(path)
            self._track(model, source, plan)

    def _listen(self, model: ActivationModel, plan: Plan) -> None:
        """Track live sound."""
        from beattrack_runtime.microphone import MicSource

        source = MicSource(self._request.device)
        with contextlib.closing(source):
            channels = "stereo" if source.channels == 2 else "mono"
            _log.info(
                "Listening to '%s' at %d Hz in %s; Ctrl-C ends.",
                source.name, source.sample_rate, channels,
            )  # fmt: skip
            self._track(model, source, plan)

    def _track(self, model: ActivationModel, source: Source, plan: Plan) -> None:
        from beattrack_runtime.following import follow
        from beattrack_runtime.session import LiveTracker

        tracker = LiveTracker(model, source.sample_rate)
        outputs = _open_outputs(plan, source)
        summary = follow(
            source, tracker, outputs, self._terminal, self._format, self._stop,
            self._request.realtime,
        )  # fmt: skip
        _log.info("%s", summary.text())
        if outputs:
            _log.info("wrote %s", ", ".join(str(output.path) for output in outputs))

    def _headline(self, path: Path) -> None:
        """Say on stdout which of several files the next events belong to."""
        import json

        headlines = {
            Format.text: f"== {path} ==",
            Format.beats: f"# {path}",
            Format.jsonl: json.dumps({"type": "file", "file": str(path)}),
        }
        if self._request.format in headlines:
            self._terminal.line(headlines[self._request.format])


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


def run(arguments: list[str]) -> int:
    """Run the command and return its exit code: 0, 2 for misuse, 1 for failure, 128 + signal.

    Every failure becomes one sentence on stderr. With BEATTRACK_DEBUG=1 in the environment the
    traceback of an unexpected one is shown.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="beattrack", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except BeattrackError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own, whose module typer has moved about
            return _fail(error.format_message().rstrip(".") + "; --help shows all options.", 2)
        if os.environ.get("BEATTRACK_DEBUG"):
            raise
        text = str(error).strip().splitlines() or [type(error).__name__]
        return _fail(
            f"Unexpected failure: {text[0].rstrip('.')} "
            "(BEATTRACK_DEBUG=1 in the environment shows where).",
            1,
        )


def _fail(sentence: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"beattrack: error: {sentence}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A song's name may hold bytes that are no text.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = run(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if code == 128 + signal.SIGPIPE:
        # Python would complain when it flushes a pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


if __name__ == "__main__":
    main()
