"""`netdsl summary`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Netdsl
from netdsl.backends.cpu.bank import WeightBank
from netdsl.backends.cpu.program import Workspace, make_plan
from netdsl.compiler import compile
from netdsl.graph.build import build
from netdsl.passes import rewrite
from netdsl.weights import random_weights


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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("network", ["tiny", "resnet18"])
def test_the_arena_is_what_is_allocated(netdsl: Netdsl, tiny: Path, network: str, threads: int) -> None:
    name = str(tiny) if network == "tiny" else network
    record = netdsl("summary", name, "--threads", threads, "--json").json
    graph = build(name)
    plan = make_plan(rewrite(graph), WeightBank(random_weights(graph)), 1, threads)
    assert Workspace(plan).arena.nbytes == record["arena_bytes"] > 0
    assert "arena: " in netdsl("summary", name).out


def test_a_bound_network_tells_its_arena() -> None:
    net = compile("lenet5")
    assert net.summary().arena_bytes == net._program.arena_bytes > 0
    assert compile("lenet5", device="reference").summary().arena_bytes is None
