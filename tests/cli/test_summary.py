"""`netdsl summary`."""

from __future__ import annotations

from pathlib import Path

from cli.conftest import Netdsl


def test_rows_and_totals(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("summary", tiny)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "tiny"
    convolution = next(line for line in lines if line.startswith("0 "))
    assert "4x8x8" in convolution and "3x3" in convolution.split()
    assert "parameters: 55 " in done.out
    assert "2,316 an image (4,632 FLOP)" in done.out


def test_settings_change_the_network(netdsl: Netdsl, tiny: Path) -> None:
    record = netdsl("summary", tiny, "--set", "wide=8", "--set", "classes=2", "--json").json
    assert record["parameters"] == 8 * 9 + 8 + 8 * 2 + 2
    assert record["flop"] == 2 * record["macs"]
    assert [row["output"] for row in record["rows"]][-1] == [2]


def test_an_unknown_setting_is_an_error(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("summary", tiny, "--set", "wides=8")
    assert done.status == 1
    assert "wide" in done.err
