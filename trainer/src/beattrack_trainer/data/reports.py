"""What a check found, for one track and for a data set, and its JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from beattrack_trainer.data.alignment import Alignment
from beattrack_trainer.data.findings import Finding

FORMAT = 1


@dataclass(frozen=True)
class TrackReport:
    """What was found about one track that has audio and beats."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float = 0.0  # of audio; 0 where it is not known
    beats: int = 0
    alignment: Alignment | None = None


@dataclass
class SetReport:
    """What was found about a data set."""

    name: str
    base: str
    audio: int
    annotations: int
    findings: list[Finding] = field(default_factory=list)
    tracks: dict[str, TrackReport] = field(default_factory=dict)

    def count(self, level: str) -> int:
        """Return how many findings there are of a level."""
        return sum(f.level == level for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; docs/datasets.md has the schema."""
        tracks = {
            name: {
                "seconds": round(t.seconds, 3),
                "beats": t.beats,
                "alignment": _rounded(t.alignment) if t.alignment else None,
            }
            for name, t in sorted(self.tracks.items())
        }
        return {
            "name": self.name,
            "base": self.base,
            "audio": self.audio,
            "annotations": self.annotations,
            "paired": len(self.tracks),
            "seconds": round(sum(t.seconds for t in self.tracks.values()), 3),
            "counts": dict(sorted(Counter(f.kind for f in self.findings).items())),
            "findings": [f.to_dict() for f in self.findings],
            "tracks": tracks,
        }


def _rounded(alignment: Alignment) -> dict[str, Any]:
    values = asdict(alignment) | {"aligned": alignment.aligned, "confident": alignment.confident}
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def report_json(reports: list[SetReport]) -> dict[str, Any]:
    """Return what ``trainer check --json`` writes."""
    return {
        "format": FORMAT,
        "errors": sum(r.count("error") for r in reports),
        "warnings": sum(r.count("warning") for r in reports),
        "data": [r.to_dict() for r in reports],
    }
