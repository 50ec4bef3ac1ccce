"""The ladder in bench/: its own rungs give the right result in the simulator, and it runs without a GPU."""

from __future__ import annotations

import pytest
from simulated import Simulator

import cubin
import cuda_ladder
from cuda_convolutions import Case

SMALL = Case(1, 4, 4, 3, 3, (3, 3), (1, 1), (1, 1, 1, 1))
NAMES = [
    "a thread for each result, along pixels", "along channels: coalesced", "slices in shared memory",
    "4x4 results in registers",
]  # fmt: skip


def error(name: str) -> float:
    rung = next(rung for rung in cuda_ladder.rungs(SMALL) if rung.name == name)
    return cuda_ladder.error(SMALL, rung)


@pytest.mark.parametrize("name", NAMES)
def test_the_lower_rungs(simulate: Simulator, name: str) -> None:
    assert simulate.apply(error, name) <= 1e-6


@pytest.mark.slow
@pytest.mark.skipif(cubin.missing() is not None, reason=cubin.missing() or "")
def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    record = cuda_ladder.main(["--convolution", "64x28", "--batch", "8"])
    printed = capsys.readouterr().out
    assert len(record["results"]) == len(NAMES) + 6
    for row in record["results"]:
        assert row["rung"] in printed and row["spills"] == 0 and 0 < row["occupancy"] <= 1
    assert record["gpu"] is not None or "nothing was run" in printed
