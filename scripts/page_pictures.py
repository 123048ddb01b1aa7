"""Draws docs/images/live.png and live-phone.png: the live page, while the bundled song plays.

    .venv-test/bin/python scripts/page_pictures.py

Takes half a minute, Chromium, and the ports 8080, 9000 and 9996 of this machine.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser import Tab, browser  # noqa: E402

SONG = ROOT / "runtime" / "demo" / "relaxation_piece.ogg"
OUTPUTS = ("osc://127.0.0.1:9000?delay=-20", "os2l://127.0.0.1:9996", "web://127.0.0.1:8080")
PLAYED_S = 28.0  # before the first picture: so long a tempo curve


def swallow(server: socket.socket) -> None:
    """Read what the OS2L output sends."""
    with contextlib.suppress(OSError):
        client, _ = server.accept()
        while client.recv(4096):
            pass


def draw(tab: Tab, name: str, width: int, height: int, touch: bool) -> None:
    """Take a picture in the middle of a flash on the first of a bar."""
    tab.open("http://127.0.0.1:8080/", width, height, touch)
    time.sleep(9)  # until the scope is full
    tab.wait("Number(document.querySelector('#glow-one').style.opacity) > 0.9")
    # A picture takes longer than the light: the lamp is held.
    tab.evaluate("beattrack.lamp.brightness = () => 1; beattrack.lamp.carry = () => {}; 0")
    tab.wait("Number(document.querySelector('#glow-one').style.opacity) === 1")
    tab.picture(ROOT / "docs" / "images" / f"{name}.png")


def main() -> None:
    """Play, and draw."""
    command = [sys.executable, "-m", "beattrack_runtime", "--file", str(SONG), "--realtime"]
    command += ["--output", "none"]
    for output in OUTPUTS:
        command += ["--output", output]
    osc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    osc.bind(("127.0.0.1", 9000))
    with osc, socket.create_server(("127.0.0.1", 9996)) as os2l:
        threading.Thread(target=swallow, args=(os2l,), daemon=True).start()
        show = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as tab:
                tab.open("about:blank")
                time.sleep(PLAYED_S)
                draw(tab, "live", 1200, 900, touch=False)
                draw(tab, "live-phone", 390, 844, touch=True)
        finally:
            show.kill()
            show.wait()


if __name__ == "__main__":
    main()
