"""Where events go: every output takes audio, frames and events as the stream runs.

The stream is handed over in this order, block by block: the audio of the block, the activation
frames and then the events that it made known. An output keeps constant memory however long the
stream is, and writes its file under another name until it is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from beattrack.events import Event


class Output(Protocol):
    """One destination of one stream."""

    path: Path  # where the result will lie

    def audio(self, block: NDArray[np.float32]) -> None:
        """Take the next audio, float32 [n, channels], at the source's own rate."""

    def frame(self, time_s: float, beat: float, downbeat: float) -> None:
        """Take the activations (0-1) that speak of stream time ``time_s``."""

    def event(self, event: Event) -> None:
        """Take one event."""

    def finish(self) -> None:
        """The stream has ended: write what is left. Raises OutputError."""

    def abandon(self) -> None:
        """Nothing came of the stream: leave no trace."""
