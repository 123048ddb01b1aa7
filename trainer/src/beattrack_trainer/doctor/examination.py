"""Every check carried out, and what training would run on in one line."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from beattrack_runtime.live.doctor.finding import BROKEN, OK, Finding
from beattrack_trainer.doctor.libraries import (
    check_audio,
    check_devices,
    check_madmom,
    check_natten,
    check_onnxruntime,
    check_torch,
)
from beattrack_trainer.doctor.surroundings import (
    check_folders,
    check_python,
    check_rendering,
    check_shared_memory,
    check_user,
    check_wandb,
)

CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_torch,
    check_devices,
    check_natten,
    check_onnxruntime,
    check_audio,
    check_madmom,
    check_rendering,
    check_wandb,
    check_shared_memory,
    check_folders,
    check_user,
)


def examine() -> list[Finding]:
    """Run every check and return what each found, in the order to be read.

    A check that fails in a way it does not know is itself a finding; none stops the others.
    """
    return [_guarded(check) for check in CHECKS]


def brief() -> str:
    """Return one line on what training would run on: torch, the devices and, on CUDA, NATTEN."""
    found = [_guarded(check_torch), _guarded(check_devices)]
    if found[1].state == OK:  # the CPU trains without NATTEN, so there is nothing to wait for
        found.append(_guarded(check_natten))
    lines = [
        f"{f.name} {f.fact}" if f.state != BROKEN else f"{f.name} BROKEN: {f.fact}" for f in found
    ]
    return "; ".join(lines)


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        with _quiet():
            return check()
    except Exception as error:  # whatever a damaged installation throws is the finding
        name = check.__name__.removeprefix("check_").replace("_", " ")
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        return Finding(name, BROKEN, text, "install the trainer anew")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of libraries out of the report."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
