"""What all tests share: further tries for those that go by the clock, and no log left over."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

# Sound servers, sockets, browsers and the moments at which things happen: a machine that does other
# work for a moment makes such a test late. It has two more tries; a fault fails in all three.
BY_THE_CLOCK = frozenset(
    "test_calibrate test_live_control test_live_delivery test_live_doctor test_live_jsonl "
    "test_live_outputs test_live_show test_mic test_pace test_page test_pcm test_streams "
    "test_web".split()
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests that go by the clock their further tries."""
    for item in items:
        if item.path.stem in BY_THE_CLOCK:
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Give the log back: the command, when run within a test, sends it to the terminal."""
    log = logging.getLogger("beattrack")
    handlers, level, propagate = log.handlers[:], log.level, log.propagate
    last = logging.lastResort
    yield
    logging.lastResort = last
    log.handlers, log.propagate = handlers, propagate
    log.setLevel(level)
