"""Options and fixtures that several test modules share, and the cache folder of all tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from netdsl import kept

# No test asserts a time: what hypothesis draws may take as long as the machine needs.
settings.register_profile("netdsl", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("netdsl")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what tests and their processes keep in a folder of their own, and let them read nothing that a person tuned.

    Compiled kernels alone are shared: their names cover all that they depend on, and compiling them takes minutes.
    """
    if hasattr(config, "workerinput"):
        return  # xdist's workers inherit the folder
    kernels, own = kept.folder("kernels").absolute(), Path(tempfile.mkdtemp(prefix="netdsl-tests-"))
    kernels.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a system that allows no links: every run compiles anew
        (own / "kernels").symlink_to(kernels, target_is_directory=True)
    os.environ["NETDSL_CACHE"] = str(own)
    config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): compares the text with tests/golden/name, or writes it there under --update-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"{path} is missing: write it with --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare
