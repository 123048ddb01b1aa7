"""A small data set of drum loops, for tests of the trainer."""

from pathlib import Path

import soundfile

from flux_model import drum_loop


def write_set(folder: Path, count: int, seconds: float = 12.0) -> None:
    """Write tracks/tNN.flac and beats/tNN.beats: loops of different tempi in 4/4."""
    (folder / "tracks").mkdir(parents=True)
    (folder / "beats").mkdir()
    for i in range(count):
        audio, beats = drum_loop(seconds, 90 + 7 * i, start_s=0.1 * (i % 5))
        soundfile.write(folder / "tracks" / f"t{i:02d}.flac", audio, 22050)
        lines = [f"{t:.4f}\t{n % 4 + 1}" for n, t in enumerate(beats)]
        (folder / "beats" / f"t{i:02d}.beats").write_text("\n".join(lines) + "\n")
