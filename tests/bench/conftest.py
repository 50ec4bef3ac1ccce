"""What the tests of the programs under bench/ run on."""

from __future__ import annotations

import pytest

TINY = """\
netdsl 1
net tiny(classes=3) {
  input image 1x8x8
  conv 4 3x3 pad=1 | relu
  avgpool global | flatten
  dense classes
}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a network that compiles in no time."""
    path = tmp_path_factory.mktemp("networks") / "tiny.net"
    path.write_text(TINY)
    return str(path)
