"""What the commands share: the consoles and the usual arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

console = Console(stderr=True)
results = Console()  # what a command is asked for; all else is said on stderr
Words = Annotated[Optional[list[str]], typer.Argument(help="Settings, key=value.")]
File = Annotated[Optional[Path], typer.Option("--config", help="YAML file of settings.")]
Jobs = Annotated[int, typer.Option(help="Processes.", min=1)]
