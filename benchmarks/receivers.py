"""Receivers of the live outputs, each with its protocol's own library, in a process of its own.

    python benchmarks/receivers.py osc|midi|jack|synth|link|serial|os2l|web [ADDRESS]

Prints a line of JSON when it is ready and one for each thing received, with ``at``, the moment by
``time.monotonic()``, which all processes of a machine share. Ends when stdin is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socketserver
import struct
import sys
import threading
import time
from typing import Any


def say(**values: Any) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps({"at": time.monotonic(), **values}) + "\n")
    sys.stdout.flush()


def osc(port: str) -> None:
    """python-osc's server."""
    from pythonosc.dispatcher import Dispatcher
    from pythonosc.osc_server import BlockingOSCUDPServer

    dispatcher = Dispatcher()
    dispatcher.set_default_handler(lambda address, *values: say(address=address, values=values))
    with BlockingOSCUDPServer(("127.0.0.1", int(port)), dispatcher) as server:
        say(ready=server.server_address[1])
        server.serve_forever()


def _midi_message(message: Any) -> None:
    values = {k: v for k, v in message.dict().items() if k not in ("type", "time")}
    say(message=message.type, **values)


def midi(path: str) -> None:
    """mido's parser on a named pipe that stands for a raw device; made here."""
    import mido

    os.mkfifo(path)
    parser = mido.Parser()
    pipe = os.open(path, os.O_RDWR)  # also to write: so it stays open between two writers
    say(ready=path)
    while True:
        parser.feed(os.read(pipe, 1024))
        for message in parser:
            _midi_message(message)


def jack(name: str) -> None:
    """python-rtmidi through JACK, read by mido; connects to ports called ``name``."""
    import mido
    import rtmidi

    receiver = rtmidi.MidiIn(rtmidi.API_UNIX_JACK, name="receiver")
    receiver.ignore_types(timing=False)
    receiver.set_callback(lambda event, _: _midi_message(mido.Message.from_bytes(event[0])))
    say(ready=name)
    while True:
        found = [i for i, port in enumerate(receiver.get_ports()) if name in port]
        if found and not receiver.is_port_open():
            receiver.open_port(found[0])
            say(connected=name)
        time.sleep(0.05)


def synth(name: str) -> None:
    """A program with a MIDI port of its own, which others connect to, through JACK."""
    import mido
    import rtmidi

    receiver = rtmidi.MidiIn(rtmidi.API_UNIX_JACK, name=name)
    receiver.ignore_types(timing=False)
    receiver.set_callback(lambda event, _: _midi_message(mido.Message.from_bytes(event[0])))
    receiver.open_virtual_port("in")
    say(ready=name)
    threading.Event().wait()


def link(_: str) -> None:
    """A Link peer; tells each beat of the session as the binding wakes for it."""
    import aalink

    async def listen() -> None:
        peer = aalink.Link(120.0)
        peer.start_stop_sync_enabled = True
        peer.quantum = 4
        peer.enabled = True
        say(ready="link")
        while True:
            await peer.sync(1)
            say(beat=peer.beat, phase=peer.phase, tempo=peer.tempo, peers=peer.num_peers,
                playing=peer.playing)  # fmt: skip

    asyncio.run(listen())


def serial(_: str) -> None:
    """A pseudo terminal, whose packets the library cobs decodes."""
    import binascii
    import pty
    import tty

    from cobs import cobs

    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    say(ready=os.ttyname(theirs))
    waiting = b""
    while True:
        waiting += os.read(ours, 1024)
        *packets, waiting = waiting.split(b"\0")
        for packet in packets:
            data = cobs.decode(packet)
            payload, (crc,) = data[:-2], struct.unpack("<H", data[-2:])
            if crc != binascii.crc_hqx(payload, 0):
                say(broken=data.hex())
            elif payload[0] == 1:
                _, sequence, position, meter, tempo, sure, flags, beat = struct.unpack(
                    "<BBBBHBBI", payload
                )
                say(beat=beat, sequence=sequence, position=position, meter=meter,
                    tempo=tempo / 100, confidence=sure / 255, jump=flags & 1)  # fmt: skip
            else:
                _, sequence, state = struct.unpack("<BBB", payload)
                say(state=state, sequence=sequence)


def os2l(port: str) -> None:
    """A lighting program's side of OS2L: a TCP server that reads JSON objects one after another."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            decoder, waiting = json.JSONDecoder(), ""
            while data := self.request.recv(4096):
                waiting = (waiting + data.decode()).lstrip()
                while waiting:
                    try:
                        message, end = decoder.raw_decode(waiting)
                    except ValueError:
                        break
                    say(**message)
                    waiting = waiting[end:].lstrip()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", int(port)), Handler) as server:
        say(ready=server.server_address[1])
        server.serve_forever()


def web(port: str) -> None:
    """A page without a browser; ``due`` is when its lamp should flash."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    say(ready=port)
    while True:
        try:
            origin: Any = f"http://127.0.0.1:{port}"
            with connect(f"ws://127.0.0.1:{port}/socket", origin=origin) as page:
                for text in page:
                    message = json.loads(text)
                    if message["type"] in ("beat", "state"):
                        say(**{**message, "due": message["at"], "at": time.monotonic()})
        except (OSError, WebSocketException):
            time.sleep(0.1)


def main() -> None:
    """Run the receiver that the command line names."""
    known = {f.__name__: f for f in (osc, midi, jack, synth, link, serial, os2l, web)}
    kind, address = (*sys.argv[1:], "0")[:2]
    if kind not in known:
        sys.exit(f"error: no receiver '{kind}': known are {', '.join(known)}")
    # What is measured is the sender, not how soon a busy machine wakes its receivers.
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(4))
    threading.Thread(target=lambda: known[kind](address), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
