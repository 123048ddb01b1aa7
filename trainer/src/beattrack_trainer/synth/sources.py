"""What a rendered set is made from: the data sets given, kinds of tracks, their mixture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from beattrack_trainer.say import say
from beattrack_trainer.synth.freedoom import survey
from beattrack_trainer.synth.groove import performances, unpack
from beattrack_trainer.synth.midi import find_program
from beattrack_trainer.synth.mma import library
from beattrack_trainer.synth.pop909 import songs

console = Console(stderr=True)

# The kinds of twenty tracks in the order of their ids.
MIX = tuple(
    "mma groove own mma pop909 heavy groove mma own groove "
    "mma pop909 mma heavy own mma groove mma own mma".split()
)
# Of these, what gives way to Freedoom where its music is given; without it all stays as it was.
FREEDOOM_SLOTS = (7, 17)
KINDS = (*sorted(set(MIX)), "freedoom")


@dataclass(frozen=True)
class Sources:
    """Archives or folders of the data sets that the music is made from; all may be missing."""

    groove: Path | None = None
    pop909: Path | None = None
    harmonix: Path | None = None  # with it, only tracks along its grids are made
    nothing: bool = False  # with it, only sounds without a beat are made
    only: str | None = None  # with it, only tracks of this kind (one of KINDS) are made
    freedoom: Path | None = None

    def unpacked(self, scratch: Path) -> Sources:
        """The same with archives unpacked into ``scratch``; raises ``ValueError``."""
        if self.harmonix is not None and not self.harmonix.is_dir():
            raise ValueError(f"The Harmonix folder {self.harmonix} does not exist.")
        given = {"groove": self.groove, "pop909": self.pop909, "freedoom": self.freedoom}
        opened = {n: None if p is None else unpack(p, scratch / n) for n, p in given.items()}
        return replace(
            self,
            groove=opened["groove"],
            pop909=opened["pop909"],
            freedoom=opened["freedoom"],
        )


def track_ids(kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Endless (id, kind); a kind that is not in ``kinds`` is replaced by one that is."""
    mix = list(MIX)
    if "freedoom" in kinds:
        for slot in FREEDOOM_SLOTS:
            mix[slot] = "freedoom"
    number = 0
    while True:
        for kind in mix:
            if kind not in kinds:
                kind = kinds[number % len(kinds)]
            yield f"{number:06d}_{kind}", kind
            number += 1


def available_kinds(sources: Sources) -> list[str]:
    """Kinds that can be made from the sources given, or the one that is asked for.

    Raises ``SynthError`` if a source is broken, ``ValueError`` if there is no such kind.
    """
    if sources.nothing:
        find_program("espeak-ng", "espeak-ng")
        return ["nothing"]
    find_program("fluidsynth")
    find_program("mma")
    library()
    kinds = ["mma", "own", "heavy"]
    if sources.groove is not None:
        performances(sources.groove)
        kinds.append("groove")
    if sources.pop909 is not None:
        songs(sources.pop909)
        kinds.append("pop909")
    if sources.freedoom is not None:
        say(console, survey(sources.freedoom).sentence())
        kinds.append("freedoom")
    if sources.only is None:
        return kinds
    if sources.only in kinds:
        return [sources.only]
    if sources.only in KINDS:
        raise ValueError(f"Tracks of {sources.only} need it: give --{sources.only} PATH.")
    raise ValueError(f"There is no kind {sources.only!r}: {', '.join(KINDS)}.")
