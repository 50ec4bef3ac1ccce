"""Measured choices of algorithms: what is kept, what is dropped, what becomes of a file that lies. No real clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from netdsl import kept
from netdsl.backends import cpu, reference
from netdsl.backends.cpu import tuned
from netdsl.backends.cpu.demands import winograd_sizes
from netdsl.backends.cpu.program import Workspace
from netdsl.backends.cpu.tune import tune
from netdsl.backends.cpu.winograd import winograd_size
from netdsl.graph.build import build
from netdsl.ops.conv import Conv
from netdsl.passes import rewrite
from netdsl.tensor import TensorType
from netdsl.weights import random_weights

TEXT = """netdsl 1
net sample {
  input x 16x12x12
  conv 32 3x3 pad=1 | relu
  conv 32 3x3 pad=1 | relu
  conv 32 3x3 pad=1 stride=2x1
  conv 32 3x3 pad=1
}
"""
GRAPH = build(TEXT)
WEIGHTS = random_weights(GRAPH, 0)
PLACES = ["3x3 from 16x12x12 to 32, pad 1,1,1,1, batch 1", "3x3 from 32x12x12 to 32, pad 1,1,1,1, batch 1",
          "3x3 from 32x6x12 to 32, pad 1,1,1,1, batch 1"]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tuning folder of the test's own; compiled kernels stay where they are."""
    folder = kept.folder
    monkeypatch.setattr(kept, "folder", lambda kind: tmp_path if kind == "tuning" else folder(kind))
    yield


def clock(seconds: Callable[[int], float], whole: Callable[[int], float] | None = None) -> Callable[..., float]:
    """A timer by which a convolution takes `seconds` of its patch size (0: direct), and a call the sum or `whole`."""

    def sizes(workspace: Workspace) -> list[int | None]:
        ways = {"conv": lambda c: 0, "winograd": lambda c: c[0]}
        return [ways[s.kernel.factory](s.kernel.constants) if s.kernel.factory in ways else None
                for s in workspace.plan.steps]  # fmt: skip

    def timer(workspace: Workspace, step: int | None) -> float:
        found = sizes(workspace) if step is None else [sizes(workspace)[step]]
        return sum((seconds if step is not None or whole is None else whole)(m) for m in found if m is not None)

    return timer


def defaults() -> list[int]:
    graph = rewrite(GRAPH)
    found = winograd_sizes(graph, 1, False)
    return [found.get(i, 0) for i, n in enumerate(graph.nodes) if isinstance(n.op, Conv) and n.op.stride == (1, 1)]


def chosen() -> list[int]:
    """The ways in which a program compiled now runs the three convolutions."""
    steps = cpu.lower(GRAPH, WEIGHTS, 1).plan(1).steps
    kernels = [s.kernel for s in steps if s.kernel.factory in ("conv", "winograd")]
    assert len(kernels) == 4
    return [k.constants[0] if k.factory == "winograd" else 0 for k in (*kernels[:2], kernels[3])]


@pytest.mark.parametrize("fastest", [0, 2, 4])
def test_the_fastest_way_is_kept_and_taken(fastest: int) -> None:
    before = defaults()
    found = tune(GRAPH, WEIGHTS, threads=1, rounds=1, timer=clock(lambda m: 1.0 if m == fastest else 2.0))
    assert [layer.geometry for layer in found.layers] == PLACES
    assert [layer.best for layer in found.layers] == [fastest] * 3 and [x.default for x in found.layers] == before
    assert found.changes == {p: fastest for p, m in zip(PLACES, before, strict=True) if m != fastest}
    assert json.loads(kept.read(found.file) or b"") == found.changes == tuned.choices(1)
    assert chosen() == [fastest] * 3 and tuned.choices(2) == {}
    x = np.random.default_rng(0).standard_normal((1, 16, 12, 12)).astype(np.float32)
    (expected,) = reference.run(GRAPH, WEIGHTS, [x])
    (y,) = cpu.lower(GRAPH, WEIGHTS, 1)([x])
    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max()
    exact = cpu.lower(GRAPH, WEIGHTS, 1, exact=True).plan(1).steps
    assert "winograd" not in {s.kernel.factory for s in exact}


def test_small_gains_and_losses_of_the_whole_change_nothing() -> None:
    before = defaults()
    other = next(m for m in (0, 2, 4) if m not in before)
    little = tune(GRAPH, WEIGHTS, threads=1, rounds=1, timer=clock(lambda m: 0.98 if m == other else 1.0))
    slower = clock(lambda m: 0.5 if m == other else 1.0, whole=lambda m: 2.0 if m == other else 1.0)
    whole = tune(GRAPH, WEIGHTS, threads=1, rounds=1, timer=slower)
    for found in (little, whole):
        assert found.changes == {} and found.before == found.after and not found.file.exists()
    assert chosen() == before


def test_tuning_again_takes_back_what_no_longer_holds() -> None:
    other = next(m for m in (0, 2, 4) if m not in defaults())
    tuned.keep(1, {"somewhere else": 2}, [])
    assert tune(GRAPH, WEIGHTS, threads=1, rounds=1, timer=clock(lambda m: 1.0 if m == other else 2.0)).changes
    assert len(tuned.choices(1)) == 4
    assert not tune(GRAPH, WEIGHTS, threads=1, rounds=1, timer=clock(lambda m: 1.0)).changes
    assert tuned.choices(1) == {"somewhere else": 2}


def test_strided_convolutions_are_measured_too() -> None:
    graph = build(
        "netdsl 1\nnet sample {\n  input x 3x40x40\n  conv 16 7x7 stride=2 pad=3 | relu\n  conv 16 3x3 stride=2\n}\n"
    )
    places = ["7x7 stride 2x2 from 3x40x40 to 16, pad 3,3,3,3, batch 1",
              "3x3 stride 2x2 from 16x20x20 to 16, pad 0,0,0,0, batch 1"]  # fmt: skip
    found = tune(graph, random_weights(graph, 0), threads=1, rounds=1, timer=clock(lambda m: 1.0 if m == 3 else 2.0))
    assert [layer.geometry for layer in found.layers] == places
    assert [layer.best for layer in found.layers] == [3, 3] and found.changes == tuned.choices(1)
    sizes = winograd_sizes(rewrite(graph), 1, False, tuned.choices(1))
    assert list(sizes.values()) == [3, 3]


def test_nothing_to_choose() -> None:
    graph = build("netdsl 1\nnet sample {\n  input x 3x4x5\n  tanh\n}\n")
    found = tune(graph, {}, rounds=1)
    assert found.layers == () and not found.file.exists()


def test_progress_is_told_of_rounds() -> None:
    told: list[tuple[str, int, int]] = []
    tune(GRAPH, WEIGHTS, 1, 1, 2, lambda *report: told.append(report), clock(lambda m: 1.0))
    assert [t for t in told if t[0] == "measuring"] == [("measuring", i, 4) for i in range(4)]


LIES = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "a list": b"[1, 2]",
    "a number": b"7",
    "no sizes": json.dumps(dict(zip(PLACES, [7, "4", 1e400], strict=True))).encode(),
    "other types": json.dumps(dict(zip(PLACES, [True, None, [2]], strict=True))).encode(),
    "large": b" " * (1 << 20) + b"{}",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_passed_over(lie: str) -> None:
    before = chosen()
    kept.write(tuned.path(1), LIES[lie])
    assert all(type(m) is int for m in tuned.choices(1).values()) and chosen() == before


def test_a_damaged_file_counts_as_absent() -> None:
    file = tuned.keep(1, dict.fromkeys(PLACES, 2), [])
    assert chosen() == [2, 2, 2]
    file.write_bytes(file.read_bytes()[:-1])
    assert chosen() == defaults()
    file.unlink()
    file.mkdir()
    assert chosen() == defaults()


def test_what_cannot_run_by_winograd_never_does() -> None:
    strided, thin = Conv(32, (3, 3), (2, 1)), Conv(32, (3, 3))
    types = TensorType((64, 12, 12)), TensorType((3, 12, 12))
    for op, x in zip((strided, thin), types, strict=True):
        assert winograd_size(op, x, 1) == 0
    graph = rewrite(build("netdsl 1\nnet sample {\n  input x 3x12x12\n  conv 32 3x3\n}\n"))
    assert winograd_sizes(graph, 1, False, {tuned.geometry(thin, types[1], 1): 4}) == {}


def test_ways_that_a_filter_lacks_are_passed_over() -> None:
    op, x = Conv(32, (5, 5), pad=(2, 2, 2, 2)), TensorType((32, 12, 12))
    graph = rewrite(build("netdsl 1\nnet sample {\n  input x 32x12x12\n  conv 32 5x5 pad=2\n}\n"))
    default = winograd_sizes(graph, 1, False)
    assert winograd_sizes(graph, 1, False, {tuned.geometry(op, x, 1): 2}) == {1: 2}
    assert winograd_sizes(graph, 1, False, {tuned.geometry(op, x, 1): 6}) == default
