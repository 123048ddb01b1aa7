"""Finds the lighting software that announces itself for OS2L, by DNS-SD in the local network.

https://os2l.org: the software offers the service ``_os2l._tcp``, at a port of its own choice.
"""

from __future__ import annotations

import logging
import queue
import time
from typing import TYPE_CHECKING

from beattrack_runtime.errors import OutputError

if TYPE_CHECKING:
    from zeroconf import Zeroconf

SERVICE = "_os2l._tcp.local."
SEARCH_S = 2.0  # s until it is said that there is none; answers take some 0.1 s
MORE_S = 0.3  # s for which others may answer after the first
MAX_PLACES = 8  # addresses that are tried: anyone in the network may announce some

_log = logging.getLogger("beattrack")


def find_os2l() -> list[tuple[str, int]]:
    """Return hosts and ports of the lighting software that answers, the first to answer first.

    One may have several addresses of which not all can be reached, and one that announces itself
    need not be running any more.

    Raises:
        OutputError: none does within ``SEARCH_S``, or there is no network.
    """
    from zeroconf import IPVersion, ServiceBrowser, ServiceStateChange, Zeroconf

    names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def heard(name: str, state_change: ServiceStateChange, **_: object) -> None:
        if state_change is ServiceStateChange.Added:
            names.put(name)

    try:
        network = Zeroconf(ip_version=IPVersion.V4Only)
    except OSError:
        raise OutputError("there is no network in which to look for lighting software") from None
    browser = ServiceBrowser(network, SERVICE, handlers=[heard])
    try:
        places = _collect(network, names)
    finally:
        browser.cancel()
        network.close()
    if not places:
        raise OutputError("no lighting software announces itself in this network (_os2l._tcp)")
    return places


def _collect(network: Zeroconf, names: queue.SimpleQueue[str]) -> list[tuple[str, int]]:
    """Return where those are whose ``names`` come in, at most ``MAX_PLACES``."""
    from zeroconf import Error

    places: list[tuple[str, int]] = []
    end_s = time.monotonic() + SEARCH_S
    while (left_s := end_s - time.monotonic()) > 0 and len(places) < MAX_PLACES:
        try:
            name = names.get(timeout=left_s)
            info = network.get_service_info(SERVICE, name, timeout=round(1000 * left_s))
        except queue.Empty:
            break
        except Error:  # a name that is none: another may be better
            continue
        if info is None or not info.port:
            continue
        for host in info.parsed_scoped_addresses():
            _log.debug("os2l: %.60a is at %.60s:%d.", name, host, info.port)
            places.append((host, info.port))
            end_s = min(end_s, time.monotonic() + MORE_S)
    return places[:MAX_PLACES]
