"""Energy curves over frequency of four instrument groups, derived from rendered stems.

The front-end of the tracker may weigh one spectrum by such curves to get a rough view of the bass,
the drums, the vocals and the others. No recorded stems are needed: General MIDI parts of POP909,
Groove and MMA are rendered group by group. There is no free singer in General MIDI, so *vocals* is
a proxy: melodies played by choir, voice, saxophone and lead sounds; it has the range of a singer
but neither consonants nor breath.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer
from numpy.typing import NDArray
from rich.console import Console
from scipy import signal

from beattrack.config import ConfigError
from beattrack_trainer.say import say
from beattrack_trainer.synth.arrange import check_soundfonts, soundfont_licence
from beattrack_trainer.synth.band import pick, program
from beattrack_trainer.synth.groove import groove_score, unpack
from beattrack_trainer.synth.midi import (
    DRUM_CHANNEL,
    Control,
    Note,
    Score,
    SynthError,
    render_wav,
    tempo_curve,
    write_midi,
)
from beattrack_trainer.synth.mma import mma_score
from beattrack_trainer.synth.pop909 import pop909_score

GROUPS = ("bass", "drums", "vocals", "others")
VOICES = (52, 53, 54, 64, 65, 66, 67, 80, 81, 85)  # choir, oohs, synth voice, saxophones, leads
BASS_PROGRAMS = range(32, 40)
POINTS = 128
RATE = 44100
SILENCE = 1e-7  # mean power of a frame (full scale 1) below which it does not sound: -70 dB

console = Console(stderr=True)


def derive_curve(
    stems: Iterable[Path], sample_rate: int = 22050, window: int = 2048
) -> NDArray[np.float32]:
    """Magnitude over frequency of some stems, float32[window // 2 + 1], 0 to 1 at its maximum.

    The mean power of Hann-windowed frames that sound (above -70 dB) is averaged over the stems,
    each at the same loudness, smoothed over a third of an octave, and rooted. Bin ``k`` is
    ``k * sample_rate / window`` Hz. Raises ``ValueError`` for a stem of another rate, or when no
    stem sounds.
    """
    total = np.zeros(window // 2 + 1)
    for stem in stems:
        audio, rate = soundfile.read(stem, dtype="float32", always_2d=True)
        if rate != sample_rate:
            raise ValueError(f"{stem} has {rate} Hz where {sample_rate} Hz is needed.")
        power = _mean_power(audio.mean(axis=1), window)
        if power is not None:
            total += power / power.sum()
    if not total.any():
        raise ValueError("No stem has a frame that sounds.")
    curve = np.sqrt(_smooth(total))
    result: NDArray[np.float32] = (curve / curve.max()).astype(np.float32)
    return result


def _mean_power(audio: NDArray[np.float32], window: int) -> NDArray[np.float64] | None:
    if len(audio) < window:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(audio, window)[:: window // 2]
    frames = frames[np.mean(frames**2, axis=1) > SILENCE]
    if not len(frames):
        return None
    spectra = np.fft.rfft(frames * signal.get_window("hann", window), axis=1)
    power: NDArray[np.float64] = np.mean(np.abs(spectra) ** 2, axis=0)
    return power


def _smooth(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a third of an octave around each bin (at least the bin itself)."""
    bins = np.arange(len(power))
    low = np.floor(bins * 2 ** (-1 / 6)).astype(int)
    high = np.minimum(np.ceil(bins * 2 ** (1 / 6)).astype(int), len(power) - 1)
    sums = np.concatenate([[0.0], np.cumsum(power)])
    result: NDArray[np.float64] = (sums[high + 1] - sums[low]) / (high + 1 - low)
    return result


def log_points(
    curve: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve at ``POINTS`` log-spaced frequencies from 20 Hz to 16 kHz, at most 1.

    Readers interpolate between the points. Returns (Hz, gain), float64[POINTS] each.
    """
    hertz = np.geomspace(20.0, 16000.0, POINTS)
    grid = np.linspace(0, sample_rate / 2, len(curve))
    gain = np.asarray(np.interp(hertz, grid, curve))
    return np.asarray(hertz, dtype=np.float64), gain / gain.max()


def write_curve(
    path: Path, hertz: NDArray[np.float64], gain: NDArray[np.float64], header: Sequence[str]
) -> None:
    """Write ``frequency_hz,gain`` rows below header lines that start with ``#``."""
    lines = [f"# {line}" for line in header] + ["frequency_hz,gain"]
    lines += [f"{f:.3f},{g:.6f}" for f, g in zip(hertz, gain, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read_curve(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read what ``write_curve`` wrote: (Hz, gain)."""
    rows = [r for r in path.read_text().splitlines() if r and not r.startswith("#")]
    table = np.array([[float(v) for v in r.split(",")] for r in rows[1:]])
    return table[:, 0], table[:, 1]


def split_groups(score: Score, lead: Sequence[int], rng: np.random.Generator) -> dict[str, Score]:
    """The notes of a score by instrument group; ``lead`` are channels that carry a melody."""
    programs: dict[int, int] = {}
    for control in score.controls:
        if control.message.type == "program_change":
            programs.setdefault(control.message.channel, control.message.program)
    groups: dict[str, list[Note]] = {name: [] for name in GROUPS}
    for note in score.notes:
        if note.channel == DRUM_CHANNEL:
            groups["drums"].append(note)
        elif programs.get(note.channel, 0) in BASS_PROGRAMS:
            groups["bass"].append(note)
        elif note.channel in lead:
            # melodies of the sources lie in the range of singers, at most an octave above
            pitch = note.pitch - 12 if note.pitch > 79 else note.pitch
            groups["vocals"].append(replace(note, pitch=pitch))
        else:
            groups["others"].append(note)
    voice = pick(VOICES, rng)
    sung = [c for channel in lead for c in program(channel, voice)]
    played = [c for c in score.controls if c.message.type != "pitchwheel"]
    controls: dict[str, list[Control]] = dict.fromkeys(GROUPS, played)
    controls["vocals"] = sung
    return {
        name: replace(score, notes=notes, controls=controls[name])
        for name, notes in groups.items()
        if len(notes) >= 20
    }


def draw_scores(
    count: int, groove: Path, pop909: Path, scratch: Path, rng: np.random.Generator
) -> Iterable[tuple[Score, tuple[int, ...]]]:
    """Scores of the three sources in turn, with the channels of their melodies."""
    for number in range(count):
        if number % 3 == 0:
            yield pop909_score(30.0, pop909, groove, rng), (0,)
        elif number % 3 == 1:
            yield groove_score(30.0, groove, rng), (3,)
        else:
            yield mma_score(30.0, scratch, rng), ()


def derive_all(
    out_dir: Path,
    groove: Path,
    pop909: Path,
    *,
    count: int = 48,
    seed: int = 0,
    soundfonts: Sequence[Path] | None = None,
) -> dict[str, Path]:
    """Render ``count`` pieces by group and write ``bass.csv`` to ``others.csv`` into ``out_dir``.

    Deterministic per seed and soundfonts. Raises ``SynthError`` when a program or source is
    missing, ``ValueError`` when a group never sounds. Returns the paths by group.
    """
    fonts = check_soundfonts(soundfonts)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="beattrack-curves-") as name:
        scratch = Path(name)
        drums, songs = unpack(groove, scratch / "groove"), unpack(pop909, scratch / "pop909")
        stems: dict[str, list[Path]] = {group: [] for group in GROUPS}
        for number, (score, lead) in enumerate(draw_scores(count, drums, songs, scratch, rng)):
            font = fonts[number % len(fonts)]
            # Beats past half a minute are not drawn: the writer drops their notes.
            times = tempo_curve(len(score.positions), score.bpm, rng)
            times = times[: max(8, int(np.searchsorted(times, 30.0)))]
            for group, part in split_groups(score, lead, rng).items():
                stem = scratch / f"{number}_{group}.wav"
                write_midi(stem.with_suffix(".mid"), part, times, rng, 0.0)
                render_wav(stem.with_suffix(".mid"), stem, font, 0.4, ["-R", "0", "-C", "0"], RATE)
                stems[group].append(stem)
        paths = {}
        for group in GROUPS:
            hertz, gain = log_points(derive_curve(stems[group], RATE, 4096), RATE)
            paths[group] = out_dir / f"{group}.csv"
            write_curve(paths[group], hertz, gain, _header(group, count, seed, stems[group], fonts))
    return paths


def _header(
    group: str, count: int, seed: int, stems: Sequence[Path], fonts: Sequence[Path]
) -> list[str]:
    lines = [
        f"Magnitude over frequency of {group}, 1 at its maximum; interpolate between the points.",
        f"Derived by beattrack_trainer.synth.subband_curves: {count} pieces, seed {seed}, "
        f"{len(stems)} stems of {group} at {RATE} Hz.",
        "Sources: POP909 (MIT), Groove MIDI Dataset (CC BY 4.0), MMA library grooves (GPL-2.0+),",
        f"generated bands; soundfonts: {', '.join(soundfont_licence(f) for f in fonts)}.",
        "Averages of spectra that hold no part of the sources; licence: that of this project.",
    ]
    if group == "vocals":
        lines.append(
            "A proxy: melodies on choir, voice, saxophone and lead sounds, no recorded voice."
        )
    return lines


def subbands(
    out: Annotated[
        Path, typer.Argument(help="Folder for bass.csv, drums.csv, vocals.csv, others.csv.")
    ],
    groove: Annotated[Path, typer.Option(help="Groove MIDI Dataset: tar archive or folder.")],
    pop909: Annotated[Path, typer.Option(help="POP909: tar archive or folder.")],
    count: Annotated[int, typer.Option(help="Pieces to render.", min=1)] = 48,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
) -> None:
    """Derive the energy curves of the instrument sub-bands from rendered stems."""
    try:
        paths = derive_all(out, groove, pop909, count=count, seed=seed)
    except (SynthError, ValueError) as error:
        raise ConfigError(str(error)) from error
    said = f"Wrote {', '.join(p.name for p in paths.values())} to {out}."
    say(console, said)
