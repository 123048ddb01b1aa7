"""From a host as the user writes it to the address of a socket."""

from __future__ import annotations

import socket
from typing import Any


def find_host(host: str, port: int, kind: socket.SocketKind) -> tuple[socket.AddressFamily, Any]:
    """Return the family and the address of ``host``, of a name the IPv4 one if it has one.

    A name such as localhost may have ::1 first while the program meant listens at 127.0.0.1 alone.

    Raises:
        OSError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=kind)
    except UnicodeError:  # too long, or with an empty part
        raise OSError(socket.EAI_NONAME, "Name or service not known") from None
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address
