"""Regular music for a grid: a groove, a drum pattern or a recorded drummer that fits its genre."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from beattrack_trainer.synth.arrange import dressed
from beattrack_trainer.synth.band import band
from beattrack_trainer.synth.drums import PATTERNS, drum_part
from beattrack_trainer.synth.groove import LICENCE as GROOVE_LICENCE
from beattrack_trainer.synth.groove import drum_track
from beattrack_trainer.synth.midi import Score, SynthError
from beattrack_trainer.synth.mma import PARTS, arrange_groove, library, natural_bpm
from beattrack_trainer.synth.own import LICENCE as OWN_LICENCE

# Beats a bar of a grid: the meter of the music that is made for it, and the grid's beats to one of
# that music's. Bars of six are compound (two beats of three); bars of eight are four slow beats.
BASES = {2: (2, 1), 3: (3, 1), 4: (4, 1), 5: (5, 1), 6: (2, 3), 7: (7, 1), 8: (4, 2)}

# A word in the genre: words in names of MMA's files, names of patterns.
GENRES: tuple[tuple[str, str, str], ...] = (
    ("hip-hop", "hip funk soul rnb r+b trip rb", "hiphop boom_bap trap breakbeat funk kick"),
    ("reggaeton", "reggae latin salsa samba merengue ska", "reggaeton latin one_drop steppers"),
    ("dance", "dance techno trance house rave disco dnb", "four four_plain disco kick drum_n_bass"),
    ("funk", "funk disco soul bvfunk fusion", "funk funk16 disco breakbeat"),
    ("r&b", "rnb r+b rb soul ballad slow", "ballad side_ballad hiphop funk trap 12/8"),
    ("country", "country cntry west blue folk swing", "train rock ridepop shuffle side_ballad"),
    ("metal", "metal mtl hrk punk rock", "metal rock punk half_time thrash double_kick gallop"),
    ("punk", "punk rock twist", "punk rock fast_rock thrash"),
    ("blues", "blues boogie shuffle", "shuffle 12/8 swing"),
    ("rock", "rock beat mtl twist", "rock rock2 rock3 half_time toms shuffle"),
    ("grunge", "rock metal hrk", "rock rock2 half_time metal fast_rock"),
    ("alternative", "rock beat pop", "rock rock2 ridepop half_time toms"),
    ("pop", "pop beat ballad dance rock", "rock ridepop four ballad disco kick shaker rock3"),
)


@dataclass(frozen=True)
class Wish:
    """What the music should be like: beats a bar, tempo of its beats, bars, genre."""

    meter: int
    bpm: float
    bars: int
    genre: str


def regular_score(wish: Wish, groove: Path | None, folder: Path, rng: np.random.Generator) -> Score:
    """A score of regular bars of ``wish.meter`` beats (a key of ``BASES``); scratch in ``folder``.

    Raises ``SynthError`` when MMA or a source fails.
    """
    meter, factor = BASES[wish.meter]
    triplet = factor == 3
    base = replace(wish, meter=meter, bpm=wish.bpm / factor)
    makers = [_pattern_score, _pattern_score]
    if meter != 7:
        makers += [_mma_score] * 3
    if groove is not None and not triplet and meter in (3, 4, 5):
        makers += [_drummer_score] * 2
    maker = makers[int(rng.integers(len(makers)))]
    score = dressed(maker(base, triplet, groove, folder, rng), rng)
    if factor == 1:
        return score
    notes = [replace(n, beat=n.beat * factor, length=n.length * factor) for n in score.notes]
    controls = [replace(c, beat=c.beat * factor) for c in score.controls]
    positions = [i % wish.meter + 1 for i in range(wish.bars * wish.meter)]
    return replace(
        score,
        notes=notes,
        controls=controls,
        positions=positions,
        meter=wish.meter,
        bpm=wish.bpm,
    )


def _fitting_words(genre: str, column: int, rng: np.random.Generator) -> list[str]:
    """Words of the genre in two of three tracks; in the others any style may come."""
    words = next((row for row in GENRES if row[0] in genre.lower()), None)
    return words[column].split() if words and rng.random() < 0.67 else []


def _mma_score(
    wish: Wish, triplet: bool, groove: Path | None, folder: Path, rng: np.random.Generator
) -> Score:
    everything = [
        g
        for g in library()
        if g.meter == wish.meter and (g.bar == 6) == triplet and not PARTS.search(g.name)
    ]
    words = _fitting_words(wish.genre, 1, rng)
    pool = [g for g in everything if any(w in g.file for w in words)] or everything
    distance = {g: abs(np.log(natural_bpm(g) / wish.bpm)) for g in pool}
    near = [g for g in pool if distance[g] < 0.3] or sorted(pool, key=distance.__getitem__)[:8]
    files = sorted({(g.folder, g.file) for g in near})  # by file first, as in mma_score
    chosen = files[int(rng.integers(len(files)))]
    members = [g for g in near if (g.folder, g.file) == chosen]
    main = members[int(rng.integers(len(members)))]
    return arrange_groove(main, wish.bpm, wish.bars, folder, rng)


def _pattern_score(
    wish: Wish, triplet: bool, groove: Path | None, folder: Path, rng: np.random.Generator
) -> Score:
    alike = [p for p in PATTERNS if p.meter == wish.meter and (p.triplet or not triplet)]
    words = _fitting_words(wish.genre, 2, rng)
    pool = [p for p in alike if p.name in words] or alike
    near = [p for p in pool if 0.9 * p.bpm[0] <= wish.bpm <= 1.1 * p.bpm[1]]
    near = near or [p for p in alike if p.bpm[0] <= wish.bpm <= p.bpm[1]] or alike
    pattern = near[int(rng.integers(len(near)))]
    swing = float(rng.choice([0.0, 0.0, 0.0, rng.uniform(0.03, 0.16)]))
    notes = drum_part(pattern, wish.bars, rng, swing)
    chance = float(rng.uniform(0.6, 1))
    more, controls = band(wish.bars, wish.meter, pattern.triplet, rng, chance, swing)
    positions = [i % wish.meter + 1 for i in range(wish.bars * wish.meter)]
    source = f"pattern {pattern.name}"
    return Score(notes + more, controls, positions, wish.meter, wish.bpm, source, OWN_LICENCE)


def _drummer_score(
    wish: Wish, triplet: bool, groove: Path | None, folder: Path, rng: np.random.Generator
) -> Score:
    if groove is None:
        raise SynthError("A recorded drummer needs the Groove MIDI Dataset.")
    notes, _, main = drum_track(groove, wish.bars, rng, wish.meter)
    more, controls = band(wish.bars, wish.meter, False, rng, float(rng.uniform(0.5, 1)))
    positions = [i % wish.meter + 1 for i in range(wish.bars * wish.meter)]
    source = f"Groove {main.path.stem}"
    return Score(notes + more, controls, positions, wish.meter, wish.bpm, source, GROOVE_LICENCE)
