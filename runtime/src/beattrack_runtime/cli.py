"""The `beattrack` command."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from beattrack_runtime import __version__
from beattrack_runtime.errors import BeattrackError, MisuseError, printable
from beattrack_runtime.job import Job
from beattrack_runtime.live.setup import ShowRequest, read_request, split_outputs
from beattrack_runtime.request import Format, LiveInput, Request, read_format

# One frame is far too little work to share among threads, and idle BLAS threads would spin
# beside the audio. OpenBLAS reads this when numpy is imported: nothing above imports it.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


_EPILOG = """
Examples:

beattrack --file song.mp3

beattrack --file song.mp3 --beats song.beats --click click.wav --plot song.png

beattrack --file a.wav --file b.flac --beats results/

beattrack --list-devices

beattrack --mic --device USB --output jsonl

beattrack --mic --output osc://127.0.0.1:9000?delay=-20 --output midi:// --output web://

beattrack --doctor

beattrack --calibrate

arecord -f S16_LE -r 48000 | beattrack --stdin --rate 48000
"""

_INPUT, _RESULTS, _OTHER = "Input", "Results", "Options"  # headings of the help

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def _option(name: str, panel: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(
        name, rich_help_panel=panel, help=text, metavar=metavar, readable=False, show_envvar=False
    )


def _named(text: str) -> str:
    """Return a name; an empty one, from an unset variable in a script, is no folder to write to."""
    if not text:
        raise MisuseError("An empty name was given where a file or folder belongs.")
    return text


def _path(text: str) -> Path:
    return Path(_named(text))


def _file_option(name: str, panel: str, text: str, metavar: str) -> Any:
    return typer.Option(
        name, rich_help_panel=panel, help=text, metavar=metavar, parser=_path, show_envvar=False
    )


def _out_option(name: str, text: str) -> Any:
    """Return an option of a result; as text, for in a Path a folder would lose its slash."""
    return typer.Option(
        name, rich_help_panel=_RESULTS, help=text, metavar="OUT", parser=_named, show_envvar=False
    )


class _Command(TyperCommand):
    """The command, which refuses what it would otherwise ignore."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an option that is given twice, and a song without its option."""
        _, rest, given = self.make_parser(ctx).parse_args(list(args))
        for option in given:
            if given.count(option) > 1 and not option.multiple:
                raise MisuseError(f"{option.opts[0]} is given twice: leave one of them out.")
        if rest and Path(rest[0]).is_file():
            raise MisuseError(f"'{rest[0]}' stands alone: give it as --file {rest[0]}.")
        return super().parse_args(ctx, args)


@app.command(cls=_Command, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def beattrack(
    file: Annotated[
        list[Path] | None,
        _file_option("--file", _INPUT, "Track this file; may be repeated.", "SONG"),
    ] = None,
    mic: Annotated[bool, _option("--mic", _INPUT, "Track live sound until Ctrl-C.")] = False,
    device: Annotated[
        str | None, _option("--device", _INPUT, "Sound input for --mic.", "NAME_OR_INDEX")
    ] = None,
    stdin: Annotated[
        bool, _option("--stdin", _INPUT, "Track raw PCM from a pipe, to its end.")
    ] = False,
    listen: Annotated[
        str | None,
        _option("--listen", _INPUT, "Track raw PCM that a TCP client sends.", "tcp://HOST:PORT"),
    ] = None,
    rate: Annotated[
        int | None, _option("--rate", _INPUT, "Of raw PCM, in Hz; 48000 if not given.")
    ] = None,
    channels: Annotated[
        int | None, _option("--channels", _INPUT, "Of raw PCM; 1 if not given.")
    ] = None,
    pcm_format: Annotated[
        str | None, _option("--pcm-format", _INPUT, "Raw PCM: s16le (default) or f32le.", "FORMAT")
    ] = None,
    channel: Annotated[
        int | None, _option("--channel", _INPUT, "Hear this channel of live sound alone, from 1.")
    ] = None,
    list_devices: Annotated[bool, _option("--list-devices", _INPUT, "List sound devices.")] = False,
    realtime: Annotated[
        bool, _option("--realtime", _INPUT, "Take files or stdin at their own speed, as if live.")
    ] = False,
    output: Annotated[
        list[str] | None,
        _option(
            "--output",
            _RESULTS,
            "Events on stdout: text, jsonl, beats or none; or a live output: jsonl://, "
            "osc://HOST:PORT, midi://, link://, serial://DEVICE, os2l://, click://, "
            "web://HOST:PORT, each with ?delay=MS if need be. May be repeated.",
            "FORMAT_OR_URL",
        ),
    ] = None,
    control: Annotated[
        str | None,
        _option("--control", _RESULTS, "Take commands by OSC at this port.", "osc://HOST:PORT"),
    ] = None,
    meter: Annotated[
        int | None, _option("--meter", _RESULTS, "Every bar has N beats.", "N")
    ] = None,
    tempo_range: Annotated[
        str | None, _option("--tempo-range", _RESULTS, "The tempo is within these bpm.", "LOW-HIGH")
    ] = None,
    beats: Annotated[
        str | None, _out_option("--beats", "Write lines of time<TAB>position.")
    ] = None,
    jsonl: Annotated[
        str | None, _out_option("--jsonl", "Write every event as a line of JSON.")
    ] = None,
    click: Annotated[
        str | None, _out_option("--click", "Write the sound with clicks on beats.")
    ] = None,
    plot: Annotated[
        str | None, _out_option("--plot", "Draw waveform, activations and beats.")
    ] = None,
    model: Annotated[
        Path | None, _file_option("--model", _OTHER, "Use this model, not the shipped one.", "ONNX")
    ] = None,
    calibrate: Annotated[
        bool,
        _option("--calibrate", _OTHER, "Measure delays: clicks heard, then taps to an --output."),
    ] = False,
    doctor: Annotated[
        bool,
        _option("--doctor", _OTHER, "Say what this machine has for live sound, and what it lacks."),
    ] = False,
    version: Annotated[bool, _option("--version", _OTHER, "Print the version.")] = False,
) -> None:
    """Track beats, downbeats and tempo in real time, in audio files or live sound.

    With several files, each OUT names a folder, and results are called after the songs.
    """
    if version:
        print(f"beattrack {__version__}")
        return
    if list_devices:
        from beattrack_runtime.microphone import list_devices as describe_devices

        print("\n".join(map(printable, describe_devices())))
        return
    if doctor:
        raise typer.Exit(_doctor(output or []))
    given = {"beats": beats, "jsonl": jsonl, "click": click, "plot": plot}
    wanted = {kind: path for kind, path in given.items() if path is not None}
    live = LiveInput(mic, device, stdin, listen, rate, channels, pcm_format, channel)
    formats, outputs = split_outputs(output or [])
    show = read_request(outputs, control, meter, tempo_range)
    form = read_format(formats, any(spec.on_stdout for spec in show.outputs))
    request = Request(file or [], live, wanted, realtime, form, model, show)
    raise typer.Exit(_calibrate(request) if calibrate else Job(request).run())


def _calibrate(request: Request) -> int:
    """Measure delays and print them."""
    from beattrack_runtime.job import log_to
    from beattrack_runtime.live.calibrate import calibrate as measure
    from beattrack_runtime.terminal import Terminal

    device, outputs = request.live.device, request.show.outputs
    live, show = LiveInput(device=device), ShowRequest(outputs)
    if request != Request([], live, {}, False, Format.text, None, show):
        raise MisuseError("--calibrate stands alone, but for --device and addresses of --output.")
    log_to(Terminal())
    return measure(device, outputs)


def _doctor(output: list[str]) -> int:
    """Print what this machine has; return 1 when --mic cannot work."""
    if output not in ([], ["text"], ["json"]):
        raise MisuseError("--doctor prints text, or with --output json a line of JSON.")
    from beattrack_runtime.live.doctor.examination import (
        can_listen,
        examine,
        report,
        report_json,
    )

    found = examine()
    text = report_json(found) if output == ["json"] else report(found)
    print("\n".join(map(printable, text.splitlines())))
    return int(not can_listen(found))


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
    except OSError as error:
        place = f"'{error.filename}'" if error.filename else "the output"
        return _fail(f"Cannot use {place}: {error.strerror or error}.", 1)
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
        print(f"beattrack: error: {printable(sentence)}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the console script."""
    _prepare_streams()
    code = run(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if code == 128 + signal.SIGPIPE:
        # Python would complain when it flushes a pipe that nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _prepare_streams() -> None:
    """Make stdout and stderr safe to write to, also where the caller has closed them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # else the next file opened would take its place
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    # Not descriptor 2 itself: sound libraries' chatter there is sent nowhere at times.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    for stream in (sys.stdout, sys.stderr):
        # A song's name may hold bytes that are no text.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
