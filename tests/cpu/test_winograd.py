"""Winograd's algorithm: the matrices are right in exact arithmetic, the kernels within the stated error."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import netdsl
from netdsl.backends import cpu, reference
from netdsl.backends.cpu import demands, winograd
from netdsl.backends.cpu.phases import Phases
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import tile_for, wanted
from netdsl.backends.cpu.winograd import depth_of, phases_of, ways_to_run, winograd_cut, winograd_size
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.plan.winograd import Matrix, inputs, output, weight
from netdsl.tensor import TensorType
from netdsl.weights import random_weights
from shapes import graph_of, random_params

# Of the largest output, by the number of points; direct kernels stay below 1e-6.
ERROR = {4: 1e-6, 5: 2e-6, 6: 1e-5, 7: 6e-6, 8: 2e-5}
SIZES = [(m, r) for r in (3, 5) for m in winograd.SIZES[r]]
ALL_SIZES = [(m, r) for r, sizes in winograd.SIZES.items() for m in sizes]


@pytest.mark.parametrize(("m", "r"), ALL_SIZES)
def test_the_matrices_compute_a_correlation_exactly(m: int, r: int) -> None:
    rng = np.random.default_rng(m)
    d = [Fraction(int(v)) for v in rng.integers(-9, 9, m + r - 1)]
    g = [Fraction(int(v)) for v in rng.integers(-9, 9, r)]

    def times(matrix: Matrix, x: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, x, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(times(weight(m, r), g), times(inputs(m + r - 1), d), strict=True)]
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
    agrees(monkeypatch, Conv(k, (r, r), pad=(pad + r // 2 - 1,) * 4), (c, h, w), batch, m)


def agrees(monkeypatch: pytest.MonkeyPatch, op: Conv | Deconv, shape: tuple[int, int, int], batch: int, m: int) -> None:
    """Assert that F(m x m, r x r) computes a convolution within its error, and each number of threads the same."""
    monkeypatch.setattr(demands, "winograd_size", lambda op, x, images, alone: m)
    kind = (TensorType(shape),)
    rng = np.random.default_rng(0)
    graph = graph_of(op, kind)
    weights = {f"layer.{r}": v for r, v in random_params(op, kind, rng).items()}
    x = rng.standard_normal((batch, *shape)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    largest = np.abs(expected).max()
    programs = {threads: cpu.lower(graph, weights, threads) for threads in (1, 2)}
    assert "winograd" in factories(programs[1])
    found = {threads: program([x])[0] for threads, program in programs.items()}
    assert np.abs(found[1] - expected).max() <= ERROR[m + phases_of(op).taps - 1] * largest
    assert np.abs(found[2] - found[1]).max() <= 1e-6 * largest


def factories(program: cpu.Program) -> list[str]:
    """What the steps for one image are made by."""
    return [s.kernel.factory for s in program.plan(1).steps]


STRIDED = [  # m, (features, kernel, stride, padding: top, left, bottom, right), (C, H, W), batch
    (3, (33, 7, 2, (3, 3, 3, 3)), (3, 24, 29), 1), (5, (64, 7, 2, (2, 3, 3, 2)), (1, 40, 7), 2),
    (4, (33, 11, 4, (2, 2, 2, 2)), (3, 47, 70), 1), (6, (20, 11, 4, (0, 1, 5, 0)), (2, 30, 11), 3),
    (3, (17, 3, 2, (1, 0, 0, 2)), (3, 40, 39), 2), (2, (16, 5, 2, (0, 1, 2, 3)), (2, 21, 3), 1),
    (4, (16, 9, 3, (4, 0, 1, 4)), (3, 25, 26), 1), (7, (24, 4, 3, (0, 0, 0, 0)), (3, 17, 50), 1),
    (3, (33, 3, 2, (1, 1, 1, 1)), (40, 14, 15), 2), (5, (16, 3, 2, (0, 1, 1, 0)), (16, 27, 8), 1),
    (7, (48, 3, 2, (1, 1, 1, 1)), (24, 28, 28), 1), (5, (48, 7, 2, (3, 3, 3, 3)), (17, 28, 9), 1),
    (3, (24, 5, 3, (2, 2, 0, 1)), (24, 11, 12), 3), (5, (40, 4, 2, (1, 2, 0, 1)), (32, 3, 21), 1),
    (3, (16, 3, 2, (1, 1, 1, 1)), (64, 1, 1), 2),
]  # fmt: skip


@pytest.mark.parametrize(("m", "layer", "shape", "batch"), STRIDED, ids=str)
def test_strided_convolutions_are_sums_over_phases(
    monkeypatch: pytest.MonkeyPatch, m: int, layer: tuple[int, int, int, tuple[int, int, int, int]],
    shape: tuple[int, int, int], batch: int,
) -> None:  # fmt: skip
    features, kernel, stride, pad = layer
    agrees(monkeypatch, Conv(features, (kernel, kernel), (stride, stride), pad), shape, batch, m)


TRANSPOSED = [  # m, (features, kernel, stride, padding: top, left, bottom, right; more at the end), (C, H, W), batch
    (4, (33, 4, 2, (1, 1, 1, 1), 0), (40, 7, 9), 2), (3, (16, 4, 2, (0, 1, 1, 0), 0), (16, 5, 4), 1),
    (5, (20, 6, 3, (1, 1, 1, 1), 0), (17, 6, 11), 3), (2, (48, 6, 2, (2, 2, 2, 2), 1), (32, 9, 8), 1),
    (7, (16, 4, 2, (1, 0, 0, 1), 0), (24, 1, 2), 2), (3, (24, 3, 1, (1, 1, 1, 1), 0), (16, 8, 8), 1),
]  # fmt: skip


@pytest.mark.parametrize(("m", "layer", "shape", "batch"), TRANSPOSED, ids=str)
def test_transposed_convolutions_are_one_for_each_phase(
    monkeypatch: pytest.MonkeyPatch, m: int, layer: tuple[int, int, int, tuple[int, int, int, int], int],
    shape: tuple[int, int, int], batch: int,
) -> None:  # fmt: skip
    features, kernel, stride, pad, extra = layer
    op = Deconv(features, (kernel, kernel), (stride, stride), pad, (extra, extra))
    agrees(monkeypatch, op, shape, batch, m)


@pytest.mark.parametrize(
    "op", [Deconv(64, (3, 3), (2, 2), (1,) * 4), Deconv(64, (4, 4), (2, 2), groups=2), Deconv(64, (2, 2), (2, 2)),
           Deconv(64, (4, 4), (2, 1)), Deconv(64, (4, 4), (2, 2), dilation=(2, 2)), Deconv(9, (4, 4), (2, 2), (6,) * 4)]
)  # fmt: skip
def test_only_even_phases_qualify(op: Deconv) -> None:
    assert winograd_size(op, TensorType((64, 28, 28)), 1) == 0
    assert winograd_size(Deconv(64, (4, 4), (2, 2), (1,) * 4), TensorType((64, 28, 28)), 1)


def test_phases_of_a_transposed_convolution_are_added_to_a_residual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands, "winograd_size", lambda op, x, images, alone: 4 if isinstance(op, Deconv) else 0)
    text = """netdsl 1
net up {
  input x 32x14x18
  a: conv 32 1x1
  maxpool 2x2 | deconv 32 4x4 stride=2 pad=1 | add a | tanh
}
"""
    graph = netdsl.build(text)
    weights, x = random_weights(graph, 0), np.random.default_rng(0).standard_normal((2, 32, 14, 18)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    program = cpu.lower(graph, weights, 2)
    assert factories(program).count("winograd") == 4 and "add" not in factories(program)
    assert np.abs(program([x])[0] - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (4, 2), (4, 3), (7, 2), (9, 3), (11, 4)])
def test_a_phase_is_multiplied_where_it_has_a_tap(kernel: int, stride: int) -> None:
    phases = Phases(kernel, stride)
    r, n = phases.taps, 6
    assert sorted(phases.order) == [(a, b) for a in range(stride) for b in range(stride)]
    for cell, (first, last) in enumerate(phases.live(n)):
        rows, columns = (
            [p for p in range(stride) if point < n - 1 or len(range(p, kernel, stride)) == r]
            for point in divmod(cell, n)
        )
        assert sorted(phases.order[first:last]) == [(a, b) for a in rows for b in columns]


FIRST = "conv 64 7x7 stride=2 pad=3"


def test_a_first_layer_reads_the_callers_array_by_phases() -> None:
    graph = netdsl.build(f"netdsl 1\nnet one {{\n  input x 3x224x224\n  {FIRST}\n}}\n")
    program = cpu.lower(graph, random_weights(graph, 0), 2)
    assert factories(program)[:2] == ["phases", "winograd"]
    assert "phases" not in factories(cpu.lower(graph, random_weights(graph, 0), 2, exact=True))


@pytest.mark.parametrize("layers", [f"branches concat {{\n {FIRST}\n maxpool 3x3 stride=2 pad=1 }}", f"relu | {FIRST}"])
def test_an_array_that_others_read_too_is_not_laid_out_by_phases(layers: str) -> None:
    graph = netdsl.build(f"netdsl 1\nnet one {{\n  input x 3x64x224\n  {layers}\n}}\n")
    weights, x = random_weights(graph, 0), np.random.default_rng(0).standard_normal((1, 3, 64, 224)).astype(np.float32)
    program = cpu.lower(graph, weights, 2)
    assert "phases" not in factories(program)
    (expected,) = reference.run(graph, weights, [x])
    assert np.abs(program([x])[0] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_zeros_around_serve_a_strided_reader_and_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands, "winograd_size", lambda op, x, images, alone: 5 if op.kernel == (3, 3) else 0)
    text = """netdsl 1
net two {
  input x 16x13x11
  relu
  branches concat {
    conv 16 3x3 stride=2 pad=1
    conv 16 5x5 stride=2 pad=2 | sigmoid
    maxpool 3x3 stride=2 pad=1 }
}
"""
    graph = netdsl.build(text)
    weights, x = random_weights(graph, 0), np.random.default_rng(0).standard_normal((3, 16, 13, 11)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    program = cpu.lower(graph, weights, 2)
    assert factories(program).count("winograd") == 1
    assert np.abs(program([x])[0] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_exact_keeps_winograd_out() -> None:
    op, kind = Conv(64, (3, 3), pad=(1,) * 4), (TensorType((64, 28, 28)),)
    graph = graph_of(op, kind)
    weights = {f"layer.{r}": v for r, v in random_params(op, kind, np.random.default_rng(0)).items()}

    assert "winograd" in factories(cpu.lower(graph, weights, 1))
    assert "winograd" not in factories(cpu.lower(graph, weights, 1, exact=True))


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
    "op", [Conv(64, (3, 3), (2, 1)), Conv(64, (5, 5), groups=2), Conv(64, (3, 5)), Conv(64, (7, 7)), Conv(64, (1, 1)),
           Conv(64, (3, 3), dilation=(2, 2)), Conv(64, (2, 2), (2, 2)), Conv(64, (3, 3), (4, 4))]
)  # fmt: skip
def test_only_plain_square_convolutions_qualify(op: Conv) -> None:
    assert winograd_size(op, TensorType((64, 56, 56)), 1) == 0
    assert all(winograd_size(Conv(64, (r, r)), TensorType((64, 56, 56)), 1) for r in (3, 5))


def test_few_channels_qualify_where_they_can_be_laid_out_by_phases() -> None:
    thin = TensorType((3, 224, 224))
    strided = Conv(64, (7, 7), (2, 2), (3, 3, 3, 3))
    assert ways_to_run(strided, thin) == (0,) and ways_to_run(strided, thin, alone=True) == (0, 3, 4, 5)
    assert ways_to_run(Conv(64, (3, 3)), thin, alone=True) == (0,)
    assert ways_to_run(strided, TensorType((64, 56, 56))) == (0, 3, 4, 5)


LAYER = depth_of(Conv(64, (3, 3)), TensorType((64, 56, 56)), 4)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("total", [1, 3, 16, 49, 196, 3136])
def test_a_cut_covers_the_work(threads: int, total: int) -> None:
    cut = winograd_cut(LAYER, 4, total, threads)
    assert 1 <= cut.patches <= total and 1 <= cut.chunks <= 4 and cut.together >= 1
    groups = math.ceil(4 / tile_for(cut.patches, 4).cols)
    assert math.ceil(total / cut.patches) * cut.chunks >= min(groups, wanted(threads))


@pytest.mark.skipif(WIDTH != 16, reason="these layers were chosen for vectors of 16 lanes")
@pytest.mark.parametrize(("channels", "size", "m", "blocks"), [(256, 14, 5, 2), (512, 7, 4, 1)])
def test_threads_share_patches_unless_weights_outweigh_them(channels: int, size: int, m: int, blocks: int) -> None:
    """Of eight images: by patches each thread transforms its own; by outputs each reads weights of its own."""
    depth, total = depth_of(Conv(channels, (3, 3)), TensorType((channels, size, size)), m), 8 * math.ceil(size / m) ** 2
    assert math.ceil(total / winograd_cut(depth, channels // 16, total, 2).patches) == blocks


@pytest.mark.parametrize(("v", "m", "tiles"), [(4, 1, 1), (5, 1, 4), (8, 1, 4), (9, 1, 8), (9, 3, 2), (99, 20, 1)])
def test_sums_of_more_tiles_are_kept_where_inputs_leave_the_cache(v: int, m: int, tiles: int) -> None:
    """In eighths of that cache. Transformed inputs are read once for all of these tiles."""
    eighth = winograd.CACHE_BYTES // 8
    assert winograd._tiles_of_m(v * eighth, m * eighth) == tiles


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_sums_are_kept_for_no_more_tiles_than_a_thread_takes_at_once(threads: int) -> None:
    """That is half of its own, the other half staying for those that are done before it; all, if it is alone."""
    depth, blocks, total = depth_of(Conv(512, (3, 3)), TensorType((512, 7, 7)), 4), 512 // WIDTH, 32
    cut = winograd_cut(depth, blocks, total, threads)
    groups = math.ceil(blocks / tile_for(cut.patches, blocks).cols)
    units = math.ceil(math.ceil(total / cut.patches) * cut.chunks / threads)
    at_once = units if threads == 1 else math.ceil(units / 2)
    assert 1 <= cut.together <= math.ceil(groups / cut.chunks) * at_once


def test_a_cut_of_a_large_map_is_found_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(
        winograd, "tile_for", lambda patches, blocks: looked.append(patches) or tile_for(patches, blocks)
    )
    winograd.winograd_cut.__wrapped__(LAYER, 4, 100_000, 2)
    assert looked == sorted(set(looked), reverse=True) and 100 < len(looked) <= winograd.MOST_PATCHES
