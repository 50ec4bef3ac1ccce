"""Winograd's algorithm: the matrices are right in exact arithmetic, the kernels within the stated error."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest

import netdsl
from netdsl.backends import cpu, reference
from netdsl.backends.cpu import demands
from netdsl.backends.cpu.kernels.matrices import INPUT, output, weight
from netdsl.backends.cpu.winograd import winograd_cut, winograd_size
from netdsl.ops.conv import Conv
from netdsl.tensor import TensorType
from netdsl.weights import random_weights
from shapes import graph_of, random_params

ERROR = {4: 1e-6, 6: 1e-5, 8: 2e-5}  # of the largest output, by the number of points; direct kernels stay below 1e-6
SIZES = [(2, 3), (4, 3), (6, 3), (2, 5), (4, 5)]


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_the_matrices_compute_a_correlation_exactly(m: int, r: int) -> None:
    rng = np.random.default_rng(m)
    d = [Fraction(int(v)) for v in rng.integers(-9, 9, m + r - 1)]
    g = [Fraction(int(v)) for v in rng.integers(-9, 9, r)]

    def exact(a: float) -> Fraction:
        fraction = Fraction(a).limit_denominator(200)
        assert float(fraction) == a
        return fraction

    def times(matrix: list[list[float]], x: list[Fraction]) -> list[Fraction]:
        return [sum((exact(a) * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(times(weight(m, r), g), times(INPUT[m + r - 1], d), strict=True)]
    assert times(output(m, r), products) == [sum(d[i + j] * g[j] for j in range(r)) for i in range(m)]


SHAPES = [  # (C, K, H, W, batch, padding)
    (16, 16, 4, 4, 1, 1), (16, 33, 7, 9, 2, 1), (64, 64, 28, 28, 1, 1), (48, 17, 13, 13, 3, 0), (17, 48, 3, 3, 2, 1),
    (40, 24, 1, 1, 2, 1), (32, 40, 2, 19, 1, 1), (256, 64, 14, 14, 1, 1), (96, 35, 7, 7, 8, 1), (18, 16, 9, 5, 1, 2),
]  # fmt: skip


@pytest.mark.parametrize(("m", "r"), SIZES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_size_agrees_with_the_definition(
    monkeypatch: pytest.MonkeyPatch, m: int, r: int, shape: tuple[int, int, int, int, int, int]
) -> None:
    c, k, h, w, batch, pad = shape
    pad += r // 2 - 1
    monkeypatch.setattr(demands, "winograd_size", lambda op, x, images: m)
    op, kind = Conv(k, (r, r), pad=(pad,) * 4), (TensorType((c, h, w)),)
    rng = np.random.default_rng(0)
    graph = graph_of(op, kind)
    weights = {f"layer.{r}": v for r, v in random_params(op, kind, rng).items()}
    x = rng.standard_normal((batch, c, h, w)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    largest = np.abs(expected).max()
    found = {threads: cpu.lower(graph, weights, threads)([x])[0] for threads in (1, 2)}
    assert np.abs(found[1] - expected).max() <= ERROR[m + r - 1] * largest
    assert np.abs(found[2] - found[1]).max() <= 1e-6 * largest


def test_exact_keeps_winograd_out() -> None:
    op, kind = Conv(64, (3, 3), pad=(1,) * 4), (TensorType((64, 28, 28)),)
    graph = graph_of(op, kind)
    weights = {f"layer.{r}": v for r, v in random_params(op, kind, np.random.default_rng(0)).items()}

    def kernels(exact: bool) -> set[str]:
        return {s.kernel.factory for s in cpu.lower(graph, weights, 1, exact=exact).plan(1).steps}

    assert "winograd" in kernels(exact=False) and "winograd" not in kernels(exact=True)


def test_exact_comes_closer_through_the_api_and_survives_a_pickle() -> None:
    text = "netdsl 1\nnet one {\n  input x 64x28x28\n  conv 64 3x3 pad=1\n}\n"
    graph = netdsl.build(text)
    weights, x = random_weights(graph, 0), np.random.default_rng(0).standard_normal((1, 64, 28, 28)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    exact = netdsl.compile(text, weights=weights, exact=True)
    near, far = (np.abs(net(x) - expected).max() for net in (exact, netdsl.compile(text, weights=weights)))
    assert near < far <= 1e-4 * np.abs(expected).max()
    assert np.array_equal(pickle.loads(pickle.dumps(exact))(x), exact(x))


@pytest.mark.parametrize(
    "op", [Conv(64, (3, 3), (2, 2)), Conv(64, (5, 5), groups=2), Conv(64, (3, 5)), Conv(64, (7, 7)), Conv(64, (1, 1))]
)
def test_only_plain_square_convolutions_qualify(op: Conv) -> None:
    assert winograd_size(op, TensorType((64, 56, 56)), 1) == 0
    assert all(winograd_size(Conv(64, (r, r)), TensorType((64, 56, 56)), 1) for r in (3, 5))


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("total", [1, 3, 16, 49, 196, 3136])
def test_a_cut_covers_the_work(threads: int, total: int) -> None:
    cut = winograd_cut(4, 3, 4, 4, total, threads)
    assert 1 <= cut.patches <= total and 1 <= cut.chunks <= threads and cut.together >= 1
