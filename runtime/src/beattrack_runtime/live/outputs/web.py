"""The live page: one port that serves it and the WebSocket that it listens to.

The server runs in a thread with an event loop of its own. Whoever sends only leaves a message
there; every page has a short mailbox and a task that empties it, so a page that does not read
holds up nobody, loses old messages, and is disconnected after some seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from typing import ClassVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from beattrack.config import ConfigError
from beattrack_runtime import __version__
from beattrack_runtime.live.clock.ticks import Tick
from beattrack_runtime.live.controls import Command, parse
from beattrack_runtime.live.output import Due
from beattrack_runtime.live.outputs.web_access import SOCKET_PATH, Access, Refusal, page_url
from beattrack_runtime.live.outputs.web_messages import (
    MAX_BYTES,
    MessageError,
    Ping,
    decode,
    encode,
    encode_due,
)

MAX_PAGES = 16  # sockets of pages at once
MAX_CONNECTIONS = 48  # with those that still load a page or say nothing
MAILBOX = 64  # messages that wait for a page; some 5 s
SEND_BUFFER = 65536  # bytes that the system keeps for a page that does not read
RATE, BURST = 40.0, 120.0  # messages a second that a page may send, and at once
PING_S, PONG_S = 4.0, 8.0  # pings of the WebSocket, and how long an answer may take
READ_S = 5.0  # a page that does not read for so long is disconnected
PRESSED_S = 1.0  # a command may have been meant so long before it came
_log = logging.getLogger("beattrack")
QUIET = logging.getLogger("beattrack_runtime.web")  # bad requests are no news for the terminal
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


class WebOutput:
    """Serves the live page and tells it what the clock says."""

    ahead_s: ClassVar[float] = 0.1  # the page schedules by itself; so early it wants to know
    beats_only: ClassVar[bool] = True

    def __init__(
        self,
        address: tuple[str, int],
        token: str | None,
        put: Callable[[Command, float], None],
        name: str | None = None,
    ) -> None:
        """Prepare a server at ``address``, a host and a port; port 0 takes a free one.

        Args:
            token: that pages must show; None makes one, on loopback none is needed.
            put: takes the commands of pages and the moments, monotonic seconds, at which they
                were meant; called in the server's thread, must not wait.
            name: that browsers may use as well, such as that of a proxy before this server.

        Raises:
            ConfigError: the token is too short or has characters that addresses cannot have, or
                the name is none.
        """
        self.host, self.port = address
        self.name = f"web://{_bracketed(self.host)}:{self.port}"
        self._access = Access(self.host, token, name)
        self._session = secrets.token_hex(8)  # pages forget what they knew of another one
        self._put = put
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._pages: set[_Page] = set()
        self._latest: dict[type, str] = {}  # the last of a kind, for pages that come later
        self._told = False
        self.turned_away = 0  # requests refused and pages disconnected

    @property
    def url(self) -> str:
        """Address to open in a browser, with the token if one is needed."""
        return page_url(self.host, self.port, self._access.token)

    @property
    def pages(self) -> int:
        """How many pages are connected."""
        return len(self._pages)

    def open(self) -> None:
        """Bind and begin to serve. Raises OSError, when the port is taken for example."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        both = self.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(
            (self.host, self.port), family=family, backlog=32, dualstack_ipv6=both
        )
        self.port = listener.getsockname()[1]
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener, ready)), name=self.name, daemon=True
        )
        self._thread.start()
        ready.result(timeout=10)
        if not self._told:  # once: it is opened again after a failure
            self._told = True
            _log.info("The live page is at %s", self.url)

    def send(self, due: Due) -> None:
        """Tell every page; never waits. Raises ConnectionError when the server has ended."""
        message = encode_due(due)
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            raise ConnectionError("The server of the live page has ended.")
        self._loop.call_soon_threadsafe(self._publish, type(due.what), message)

    def close(self) -> None:
        """Disconnect every page and free the port."""
        if self._thread is None:
            return
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=5)
        self._thread = self._loop = self._stop = None

    # In the server's thread

    async def _serve(self, listener: socket.socket, ready: Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with serve(
                self._page, sock=listener, process_request=self._request,
                create_connection=_Bounded, compression=None, server_header=None, logger=QUIET,
                open_timeout=5, close_timeout=2, ping_interval=PING_S, ping_timeout=PONG_S,
                max_size=MAX_BYTES, max_queue=4,
            ):  # fmt: skip
                ready.set_result(None)
                await self._stop.wait()
        except Exception as error:  # `open` says it; later the next `send` finds the thread ended
            QUIET.exception("the server of the live page has ended")
            if not ready.done():
                ready.set_exception(error)

    def _publish(self, kind: type, message: str) -> None:
        if kind is not Tick:  # a beat is over soon
            self._latest[kind] = message
        for page in self._pages:
            page.post(message)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer with a page or a refusal; None goes on to the WebSocket."""
        named = {name: request.headers.get_all(name) for name in ("host", "origin")}
        try:
            path = self._access.check(request.path, named)
            if path == SOCKET_PATH and len(self._pages) >= MAX_PAGES:
                raise Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE, f"{MAX_PAGES} pages are open already."
                )
        except Refusal as refusal:
            self.turned_away += 1
            text = refusal.sentence.encode() + b"\n"
            return _response(refusal.status, text, {"Content-Type": "text/plain; charset=utf-8"})
        if path == SOCKET_PATH:
            return None
        body, headers = self._access.page(path, named["host"][0])
        return _response(HTTPStatus.OK, body, headers)

    async def _page(self, connection: ServerConnection) -> None:
        page = _Page(connection)
        page.post(encode("hello", server=__version__, session=self._session, output=self.name))
        for known in self._latest.values():
            page.post(known)
        self._pages.add(page)
        sender = asyncio.create_task(page.deliver())
        try:
            async for message in connection:
                if not page.may_speak():
                    self.turned_away += 1
                    await connection.close(1008, "too many messages")
                    break
                await connection.send(self._answer(message))
        except ConnectionClosed:
            pass
        finally:
            self._pages.discard(page)
            sender.cancel()

    def _answer(self, message: str | bytes) -> str:
        now = time.monotonic()
        try:
            asked = decode(message)
            if isinstance(asked, Ping):
                return encode("pong", id=asked.id, time=now)
            meant = now if asked.at is None else asked.at
            self._put(parse(asked.line), meant if now - PRESSED_S <= meant <= now else now)
        except (MessageError, ConfigError) as error:
            return encode("error", text=str(error))
        return encode("done", command=asked.line)


class _Page:
    """One connected page and the messages that wait for it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._mailbox: deque[str] = deque(maxlen=MAILBOX)  # the oldest fall out
        self._filled = asyncio.Event()
        self._allowed = BURST
        self._spoke = time.monotonic()

    def post(self, message: str) -> None:
        self._mailbox.append(message)
        self._filled.set()

    async def deliver(self) -> None:
        """Send what waits until the connection ends, or the page has stopped reading."""
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._mailbox:
                    message = self._mailbox.popleft()
                    await asyncio.wait_for(self._connection.send(message), READ_S)
        except ConnectionClosed:
            pass
        except asyncio.TimeoutError:  # pings would wait as well: they find it no better
            self._connection.transport.abort()

    def may_speak(self) -> bool:
        """Count a message of the page; False when there are too many."""
        now = time.monotonic()
        self._allowed = min(BURST, self._allowed + RATE * (now - self._spoke)) - 1
        self._spoke = now
        return self._allowed >= 0


class _Bounded(ServerConnection):
    """A connection that is one of a bounded number, for which the system keeps little."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER
        )
        if len(self.server.handlers) > MAX_CONNECTIONS:
            self.transport.abort()


def _response(status: HTTPStatus, body: bytes, headers: dict[str, str]) -> Response:
    every = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status.value, status.phrase, Headers(every), body)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
