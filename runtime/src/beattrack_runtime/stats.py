"""What a finished stream amounted to, counted in constant memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from beattrack.events import Beat, Event


@dataclass
class Summary:
    """Counts of one stream."""

    name: str
    beats: int = 0
    bars: int = 0  # downbeats
    tempi: Counter[float] = field(default_factory=Counter)  # beats by tempo, to 0.1 bpm
    meters: Counter[int] = field(default_factory=Counter)  # beats by beats per bar
    audio_s: float = 0.0  # seconds of audio heard
    wall_s: float = 0.0  # seconds that it took
    overruns: int = 0  # times that a live source lost audio
    bad_samples: int = 0  # samples that were not finite and were taken as silence
    cut_of_s: float | None = None  # length of a file that was not heard to its end, seconds

    def event(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, Beat):
            self.beats += 1
            self.bars += event.is_downbeat
            self.tempi[round(event.tempo_bpm, 1)] += 1
            self.meters[event.beats_per_bar] += 1

    @property
    def tempo_bpm(self) -> float | None:
        """The median tempo; None without beats."""
        return median(self.tempi)

    @property
    def meter(self) -> int | None:
        """The commonest number of beats in a bar; None without beats."""
        return self.meters.most_common(1)[0][0] if self.meters else None

    def text(self) -> str:
        """Return the summary as one line."""
        speed = f" ({self.audio_s / self.wall_s:.0f} times real time)" if self.wall_s > 0 else ""
        heard = f"{clock(self.audio_s)} of audio in {self.wall_s:.1f} s{speed}"
        if self.cut_of_s is not None:
            heard += f"; cut short: the whole lasts {clock(self.cut_of_s)}"
        if self.overruns:
            heard += f"; {self.overruns} overruns"
        if self.bad_samples:
            heard += f"; {self.bad_samples} samples were not numbers and were taken as silence"
        if not self.beats:
            return f"{self.name}: no beats; {heard}"
        beats = "1 beat" if self.beats == 1 else f"{self.beats} beats"
        bars = "1 bar" if self.bars == 1 else f"{self.bars} bars"
        return (
            f"{self.name}: {beats}, {bars}, "
            f"median {self.tempo_bpm:.1f} bpm, mostly {self.meter} beats in a bar; {heard}"
        )


def median(counts: Counter[float]) -> float | None:
    """Return the lower median of counted values; None without any."""
    left = (sum(counts.values()) + 1) // 2
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return None


def clock(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss from an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"
