"""Runs commands in this process, through the same door as the console script."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from netdsl.cli import app

TINY = """\
netdsl 1
net tiny(classes=3, wide=4) {
  input image 1x8x8
  conv wide 3x3 pad=1 | relu
  avgpool global | flatten
  dense classes
}
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Netdsl = Callable[..., Done]


@pytest.fixture
def netdsl(capsys: pytest.CaptureFixture[str]) -> Netdsl:
    """`netdsl("run", "lenet5")` runs that command."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        status = app.run([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(status, captured.out, captured.err)

    return run


@pytest.fixture
def tiny(tmp_path: Any) -> Any:
    """The path of a network that compiles in no time."""
    path = tmp_path / "tiny.net"
    path.write_text(TINY)
    return path
