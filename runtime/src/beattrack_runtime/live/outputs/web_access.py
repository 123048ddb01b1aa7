"""Who may see the live page: the token, the names that a browser may use, the answers to others.

A page on the web may make a browser send requests to this machine, or may let its own name point
to it (DNS rebinding). Against the first stands the check of Origin, against the second that of
Host; against others on the network stands the token. Whoever shows the token may call this machine
as they like: the page of a name that was pointed here does not know it.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from http import HTTPStatus
from importlib import resources
from urllib.parse import parse_qs

from beattrack.config import ConfigError

_SCRIPT = "text/javascript; charset=utf-8"
PAGES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/lamp.js": ("lamp.js", _SCRIPT),
    "/pictures.js": ("pictures.js", _SCRIPT),
    "/steer.js": ("steer.js", _SCRIPT),
    "/page.js": ("page.js", _SCRIPT),
}
SOCKET_PATH = "/socket"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,128}")
_NAME = re.compile(r"[a-z0-9._-]{1,253}")
_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?")


class Refusal(Exception):
    """A request that is not answered with what it asks for: a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Access:
    """Decides on requests; ``token`` is None where none is needed."""

    def __init__(self, host: str, token: str | None = None, name: str | None = None) -> None:
        """Take the name or address that the server is bound to.

        Args:
            host: that the server is bound to.
            token: that requests must show; beyond loopback one is made where none is given.
            name: by which this machine is known as well, such as that of a proxy before it.

        Raises:
            ConfigError: a token that is no 8-128 letters, digits, - or _; a name that is none.
        """
        if name is not None and not _NAME.fullmatch(name.lower()):
            raise ConfigError(
                f"The name {name[:60]!a} of the live page is not possible: write it like "
                "lights.example.org, without port."
            )
        if token is not None and not _TOKEN.fullmatch(token):
            raise ConfigError(
                "The token of the live page is not possible: "
                "it must be 8-128 letters, digits, '-' or '_'."
            )
        self.loopback = is_loopback(host)
        self.token = secrets.token_urlsafe(16) if token is None and not self.loopback else token
        own = socket.gethostname().lower()
        self._name = None if name is None else name.lower()
        self._names = {"localhost"} | ({self._name} if self._name else set())
        if not self.loopback:
            self._names |= {own, f"{own}.local", host.lower()}

    def check(self, target: str, headers: Mapping[str, list[str]]) -> str:
        """Return the path of an allowed request.

        Args:
            target: path and query as sent.
            headers: all values of ``host`` and ``origin``.

        Raises:
            Refusal: the request is not allowed or asks for what does not exist.
        """
        host = self._check_host(headers["host"])
        path, _, query = target.partition("?")
        if path != SOCKET_PATH and path not in PAGES:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such page; the live page is at /.")
        self._check_token(query)
        if path == SOCKET_PATH:
            self._check_origin(headers["origin"], host)
        return path

    def _check_host(self, hosts: list[str]) -> str:
        """Addresses are safe from DNS rebinding; without a token, names must be this machine's."""
        host = hosts[0].lower() if len(hosts) == 1 else ""
        match = _HOST.fullmatch(host)
        name = match[1].strip("[]") if match else ""
        known = name in self._names or (_is_address(name) and self._reachable(name))
        if not match or not (known or self.token):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "This machine is not called so: open the live page at the address that "
                "beattrack printed.",
            )
        return host

    def _reachable(self, address: str) -> bool:
        return not self.loopback or ipaddress.ip_address(address).is_loopback

    def _check_token(self, query: str) -> None:
        if self.token is None:
            return
        try:
            given = parse_qs(query, max_num_fields=4).get("token", [""])[0]
        except ValueError:
            given = ""
        # Compared in constant time: how long it takes must not tell how much of it is right.
        if not hmac.compare_digest(given.encode(errors="replace"), self.token.encode()):
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "The token is missing or wrong: open the address that beattrack printed, "
                "which ends in ?token=...",
            )

    def _check_origin(self, origins: list[str], host: str) -> None:
        """A browser says whose page it shows; programs say nothing."""
        allowed = {f"http://{host}", f"https://{host}"}
        origin = origins[0].lower() if len(origins) == 1 else ""
        # A proxy may call this machine otherwise than the browser calls the proxy.
        by_name = self._name and re.fullmatch(rf"https://{re.escape(self._name)}(:[0-9]+)?", origin)
        if origins and origin not in allowed and not by_name:
            raise Refusal(HTTPStatus.FORBIDDEN, "Another site's page may not steer beattrack.")

    def page(self, path: str, host: str) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of a page; ``host`` is the checked header of the request."""
        name, kind = PAGES[path]
        body = (resources.files(__package__) / "web" / name).read_bytes()
        if path == "/":
            query = "" if self.token is None else f"?token={self.token}"
            body = body.replace(b"{{query}}", query.encode())
        return body, {"Content-Type": kind, **safety_headers(host)}


def safety_headers(host: str) -> dict[str, str]:
    """Return headers that let the page load from here alone, in no frame, and tell no address.

    Old Safari does not take 'self' for the socket, so that is named.
    """
    return {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
            f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def is_loopback(host: str) -> bool:
    """Return whether a server bound to ``host`` is seen by this machine alone."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def page_url(host: str, port: int, token: str | None) -> str:
    """Return the address to open; for a server bound to all addresses, the one others see."""
    shown = host
    if _is_address(host) and ipaddress.ip_address(host).is_unspecified:
        shown = _own_address() or _local_name()
    if ":" in shown:
        shown = f"[{shown}]"
    return f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")


def _local_name() -> str:
    """Return this machine's name as phones without a name server find it (mDNS)."""
    name = socket.gethostname()
    return name if "." in name or name == "localhost" else f"{name}.local"


def _own_address() -> str | None:
    """Return the address of the card that leads outside; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address kept for documentation
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
