"""What a container's command line lets the program do: go before others, and reach the network."""

from __future__ import annotations

from pathlib import Path

from beattrack_runtime import microphone
from beattrack_runtime.live.doctor.finding import NOTE, OK, Finding
from beattrack_runtime.live.show import PRIORITY, hurry, relax

NET = Path("/sys/class/net")  # the network cards of this container
_ETHERNET = "1"  # in the file type of a card


def check_priority() -> list[Finding]:
    """In a container, whether a show may go before other programs; really tried."""
    if not microphone.in_container():
        return []
    policy = hurry()
    relax(policy)
    if policy is not None:
        return [Finding("priority", OK, "beats go before other programs")]
    if _limit() >= PRIORITY:
        fact = "the kernel grants no real-time priority, though the limit would"
        return [Finding("priority", NOTE, fact, "end other programs, or beats may be late")]
    remedy = f"start it with --ulimit rtprio={PRIORITY}, or beats may be late beside other programs"
    return [Finding("priority", NOTE, f"without --ulimit rtprio={PRIORITY}", remedy)]


def check_network() -> list[Finding]:
    """In a container, whether it has the network of its host."""
    if not microphone.in_container():
        return []
    if not own_network():
        return [Finding("network", OK, "no sign of a network of its own")]
    remedy = "for link://, os2l://auto and phones start it with --network host"
    return [Finding("network", NOTE, "without --network host", remedy)]


def own_network() -> bool:
    """Whether all that leads outside is one end of a cable to the host's bridge, as Docker lays it.

    A machine has a card with a device behind it, or a bridge, which such a container never has.
    """
    cables = 0
    try:
        for card in NET.iterdir():
            if (card / "type").read_text().strip() != _ETHERNET:
                continue  # lo, and tunnels that every system has
            kind = (card / "uevent").read_text().partition("DEVTYPE=")[2].partition("\n")[0]
            if (card / "device").exists() or kind not in ("", "veth"):
                return False
            # The other end lies in another network: the number of a card that is not seen here.
            cables += (card / "iflink").read_text() != (card / "ifindex").read_text()
    except OSError:  # what cannot be seen is no sign
        return False
    return cables > 0


def _limit() -> int:
    """Return the highest real-time priority that this user may ask for."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    except (ImportError, AttributeError, OSError, ValueError):
        return 0
    return PRIORITY if limit == resource.RLIM_INFINITY else limit
