"""One way to put a sentence into the terminal."""

from __future__ import annotations

from rich.console import Console

from beattrack_runtime.errors import printable


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a text as it stands: names hold no markup, and no line ends in the middle of a path."""
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
