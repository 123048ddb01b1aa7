"""Finds the lighting software that announces itself for OS2L, by DNS-SD in the local network.

https://os2l.org: the software offers the service ``_os2l._tcp``, at a port of its own choice.
"""

from __future__ import annotations

import logging
import queue
import time

from beattrack_runtime.errors import OutputError

SERVICE = "_os2l._tcp.local."
SEARCH_S = 2.0  # s until it is said that there is none; answers take some 0.1 s

_log = logging.getLogger("beattrack")


def find_os2l() -> tuple[str, int]:
    """Return the host and port of the first lighting software that answers.

    Raises:
        OutputError: none does within ``SEARCH_S``, or there is no network.
    """
    from zeroconf import Error, IPVersion, ServiceBrowser, ServiceStateChange, Zeroconf

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
        end_s = time.monotonic() + SEARCH_S
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                name = names.get(timeout=left_s)
                info = network.get_service_info(SERVICE, name, timeout=round(1000 * left_s))
            except queue.Empty:
                break
            except Error:  # a name that is none: another may be better
                continue
            if info is not None and info.port and (hosts := info.parsed_addresses()):
                _log.info("os2l: %.60a is at %s:%d.", name, hosts[0], info.port)
                return hosts[0], info.port
    finally:
        browser.cancel()
        network.close()
    raise OutputError("no lighting software announces itself in this network (_os2l._tcp)")
