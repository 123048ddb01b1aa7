"""What the tests of the images share: an engine, bases, and the machine's pip settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from engines import Engine, engine_environment, script


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Start an engine, or use the one that runs; one that was started here ends with the tests."""
    ran = "DOCKER_HOST" in engine_environment()
    script("engine.sh", "start")
    yield Engine(engine_environment())
    if not ran:
        script("engine.sh", "stop")


@pytest.fixture(scope="session")
def pip_settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of `docker build` that lend it where this machine's pip looks, and whom it trusts."""
    wanted = ("cert", "index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    settings = {}
    for line in listed.splitlines():  # such as global.cert='/etc/ssl/...'
        found = re.fullmatch(r"(?:global|install|:env:)\.([\w-]+)='(.*)'", line)
        if found and found[1] in wanted and "file://" not in found[2]:
            settings[found[1]] = found[2]
    file = tmp_path_factory.mktemp("pip") / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))
    return ["--secret", f"id=pip,src={file}"]


@pytest.fixture(scope="session")
def base_amd64(engine: Engine) -> str:
    """The stand-in base for x86-64."""
    script("base.sh", "amd64", "beattrack-base:amd64", env=engine.environment)
    return "beattrack-base:amd64"


@pytest.fixture(scope="session")
def base_arm64(engine: Engine) -> str:
    """The stand-in base for aarch64, emulated where this machine is another."""
    script("emulate.sh", env=engine.environment)
    script("base.sh", "arm64", "beattrack-base:arm64", env=engine.environment)
    return "beattrack-base:arm64"
