"""Live beat, downbeat and tempo tracking from the command line or from Python.

from beattrack_runtime import open_tracker

tracker = open_tracker(sample_rate=44100)
for event in tracker.push(block):
    print(event)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LiveTracker", "__version__", "open_tracker"]

if TYPE_CHECKING:
    from beattrack_runtime.session import LiveTracker, open_tracker


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line must set the number of BLAS threads before numpy
    # is imported, and `beattrack --version` should not wait for numpy at all.
    if name in ("LiveTracker", "open_tracker"):
        from beattrack_runtime import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
