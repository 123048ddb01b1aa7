"""Starts the receivers of benchmarks/receivers.py and collects what they received."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "receivers.py"


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Receiver:
    """A receiver in a process of its own."""

    def __init__(self, kind: str, address: object = "0") -> None:
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(address)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        end = time.monotonic() + 20
        while not self.lines:
            assert self._process.poll() is None, f"the receiver of {kind} has ended"
            assert time.monotonic() < end, f"the receiver of {kind} does not begin"
            time.sleep(0.01)
        self.ready = self.lines.pop(0)["ready"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)

    def with_key(self, key: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if key in line]


@contextlib.contextmanager
def jack_server() -> Iterator[None]:
    """Run a JACK server without a sound card; skip where that is impossible."""
    if shutil.which("jackd") is None:
        pytest.skip("jackd2 is not installed")
    command = ["jackd", "--no-realtime", "-d", "dummy", "-r", "48000", "-p", "256"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1.0)
        if server.poll() is not None:
            pytest.skip("no JACK server can start")
        yield
    finally:
        server.terminate()
        server.wait(10)
