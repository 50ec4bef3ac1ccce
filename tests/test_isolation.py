"""Tests neither read nor write what the person who runs them keeps, except compiled kernels; none asserts a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fresh import in_fresh_process
from netdsl import kept
from netdsl.backends.cpu import tuned

ROOT = Path(__file__).parent.parent
WORKERS = pytest.mark.parametrize("workers", [0, 1])


def test_nothing_is_tuned() -> None:
    """Here and in processes that tests start; tests that tune do so in a folder of their own."""
    code = "from netdsl.backends.cpu import tuned\nprint(tuned.choices(1), tuned.path(1))"
    done = in_fresh_process(code)
    assert done.stdout.split() == ["{}", str(tuned.path(1))] and tuned.choices(1) == {}, done.stderr


@WORKERS
def test_a_persons_folder_gets_kernels_alone(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of a person who has tuned: they find no choices, and what they parse is kept elsewhere."""
    kernels, person = kept.folder("kernels").resolve(), tmp_path / "person"
    person.mkdir()
    (person / "kernels").symlink_to(kernels, target_is_directory=True)  # compiled before
    monkeypatch.setenv("NETDSL_CACHE", str(person))
    file = tuned.keep(1, {"3x3 from 16x12x12 to 32, pad 1,1,1,1, batch 1": 2}, [])
    assert tuned.choices(1) and file.parent.parent == person
    tests = [f"{__file__}::{test_nothing_is_tuned.__name__}", "tests/cli/test_summary.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in person.iterdir()) == ["kernels", "tuning"]
    assert list(file.parent.iterdir()) == [file]


def test_what_hypothesis_draws_may_take_its_time() -> None:
    """Unless a test says otherwise, it would fail above 200 milliseconds, or where drawing takes seconds."""
    assert settings().deadline is None and HealthCheck.too_slow in settings().suppress_health_check
