"""The command behind ``just bench-peers``."""

from __future__ import annotations

import argparse
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import json
import shutil
import sys
from pathlib import Path

from rich.console import Console

from beattrack.config import ConfigError
from beattrack_runtime.errors import BeattrackError
from peers import pictures, report
from peers.catalogue import chosen
from peers.compare import Comparison, compare, find_tracks, install
from peers.hearing import ROOT, Hearings

EXAMPLES = """examples:
  just bench-peers my-songs
  just bench-peers my-songs --peers aubio,madmom-online --model exports/RUN.onnx
"""


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="just bench-peers", description="Run online beat trackers and ours over a folder of "
        "audio with .beats files and score them alike.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", help="audio with .beats beside it, or tracks/ and beats/")
    parser.add_argument("--peers", default="", help="only these, with commas (default: all)")
    parser.add_argument(
        "--model", action="append", default=[], metavar="ONNX",
        help="another model of ours, a row of its own; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--beats-only", default="", metavar="SONGS",
        help="songs, with commas, whose downbeats are not to be trusted",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="songs at a time")
    parser.add_argument("--save-dir", type=Path, help="default: results/peers-<folder>")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "build" / "peers",
        help="environments and what was heard (default: build/peers)",
    )  # fmt: skip
    return parser.parse_args()


def run(options: argparse.Namespace, console: Console) -> None:
    """Compare, show the table and write the results."""
    peers = chosen(options.peers, [str(Path(m).resolve()) for m in options.model])
    tracks = find_tracks(options.folder, console)
    only = frozenset(n for n in options.beats_only.split(",") if n)
    if unknown := only - {t.name for t in tracks}:
        raise ConfigError(f"There is no song '{min(unknown)}' in '{options.folder}'.")
    listeners, left_out = install(peers, options.cache / "environments", console)
    work = Comparison(listeners, Hearings(options.cache / "heard"), only, console)
    work.left_out.update(left_out)
    name = Path(options.folder).resolve().name
    results = compare(work, name, tracks, options.jobs)
    place = options.save_dir or ROOT / "results" / f"peers-{name}"
    place.mkdir(parents=True, exist_ok=True)
    title = f"{name}, {len(results.songs)} songs"
    pictures.save(pictures.scores, results.rows, title, place / "scores.png")
    pictures.save(pictures.songs, results.rows, title, place / "songs.png")
    report.write(place / "table.md", report.markdown(results))
    report.write(place / "peers.json", json.dumps(report.as_json(results), indent=1) + "\n")
    console.print(report.table(results))
    console.print(f"{place}: table.md, peers.json, scores.png, songs.png", highlight=False)


def main() -> int:
    """Return the exit code: 2 for misuse, 1 for failure, 130 after Ctrl-C."""
    wide = max(170, shutil.get_terminal_size().columns) if not sys.stdout.isatty() else None
    console = Console(width=wide)
    try:
        run(arguments(), console)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on where it was.", file=sys.stderr)
        return 130
    except (ConfigError, BeattrackError, ValueError, OSError) as error:
        print(f"bench-peers: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
