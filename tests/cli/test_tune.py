"""`netdsl tune`. What is measured is left to tests/cpu/test_tuning.py; nothing here depends on times."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Netdsl
from netdsl import kept
from netdsl.backends.cpu import tuned

NET = """netdsl 1
net sample {
  input x 16x12x12
  conv 32 3x3 pad=1 | relu
}
"""
GEOMETRY = "3x3 from 16x12x12 to 32, pad 1,1,1,1, batch 1"


@pytest.fixture(autouse=True)
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The network's path; choices are kept in a folder of the test's own."""
    folder = kept.folder
    monkeypatch.setattr(kept, "folder", lambda kind: tmp_path if kind == "tuning" else folder(kind))
    path = tmp_path / "sample.net"
    path.write_text(NET)
    return path


def test_a_table_says_what_was_measured(netdsl: Netdsl, net: Path) -> None:
    done = netdsl("tune", net, "--threads", 1, "--rounds", 1)
    assert done.status == 0 and "measuring" in done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["layers", "convolution", "direct", "ms"] and GEOMETRY in lines[1]
    assert "a whole call, 1 thread, batch 1: " in done.out
    kept_in = f"1 choice kept in {tuned.path(1)}"
    assert lines[-1] == (kept_in if tuned.choices(1) else "nothing to change")


def test_json(netdsl: Netdsl, net: Path) -> None:
    record = netdsl("tune", net, "--threads", 1, "--rounds", 1, "--json").json
    assert (record["network"], record["images"], record["threads"]) == ("sample", 1, 1)
    (layer,) = record["layers"]
    assert layer["geometry"] == GEOMETRY and {"0", "2", "4"} <= set(layer["seconds"])
    assert record["changes"] == tuned.choices(1)


def test_a_network_without_choices(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("tune", tiny, "--rounds", 1)
    assert (done.status, done.out) == (0, "tiny has no convolution that there are several ways to run\n")


def test_a_disk_that_takes_nothing_is_said(netdsl: Netdsl, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.keep(1, {GEOMETRY: 2}, [])

    def refuse(path: Path, content: bytes) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(kept, "write", refuse)
    done = netdsl("tune", net, "--threads", 1, "--rounds", 1)
    assert done.status == 1
    assert "error[cannot-write]: what was measured cannot be kept: Read-only file system" in done.err
