"""Hostile texts end in a clear error within 20 million calls and returns (some two seconds) and 500 MB."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graph import hostile_texts

CALLS, MEGABYTES, CHARACTERS = 20_000_000, 500, 60_000


@pytest.mark.parametrize("name", hostile_texts.CASES)
def test_hostile_text(name: str, tmp_path: Path) -> None:
    command = [sys.executable, hostile_texts.__file__, name, str(tmp_path / "hostile.net")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout)
    assert hostile_texts.CASES[name][0] in record["codes"]
    assert record["calls"] < CALLS
    assert record["megabytes"] < MEGABYTES
    assert record["length"] < CHARACTERS
