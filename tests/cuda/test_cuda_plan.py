"""The plan of the CUDA lowering as plain data: every network lowers, nothing is read or written out of its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netdsl.backends.cuda.planner import WeightBank
from netdsl.backends.cuda.precision import tensor_types
from netdsl.backends.cuda.program import TENSOR_CAPABILITY, Plan, make_plan
from netdsl.backends.cuda.steps import BLOCK, MOST_BLOCKS, block_each, one_each, team
from netdsl.backends.cuda.tiles import Target
from netdsl.backends.cuda.views import LANES, Address, Data, Port, View, lanes_of, layout, padded
from netdsl.graph.build import build
from netdsl.model import PRECISIONS
from netdsl.ops.deconv import Deconv
from netdsl.passes import rewrite
from netdsl.plan.windows import deconv_phases
from netdsl.tensor import TensorType
from shapes import CASES, graph_of

NETWORKS = sorted(json.loads((Path(__file__).parent.parent / "golden" / "networks" / "facts.json").read_text()))


class Unpacked(WeightBank):
    """Weights that are never computed: the plan's shape does not depend on them."""

    def pack(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Data:
        return Data(np.zeros(1, np.float32))


def plan_of(name: str, images: int, precision: str = "float32", target: Target | None = None) -> Plan:
    return make_plan(rewrite(build(name)), Unpacked({}), images, precision, target)


def aligned(view: View) -> None:
    """Assert that every pixel begins on 16 bytes and that its lanes are all there."""
    assert view.multiple % lanes_of(view.dtype) == 0
    assert all(n % view.multiple == 0 for n in (view.start, view.image, view.row, view.pixel, view.lanes))
    assert view.channels <= view.lanes < view.channels + view.multiple


def extent(view: View, images: int) -> int:
    """One past the last word of a view, from its buffer's start."""
    spans = ((images, view.image), (view.height, view.row), (view.width, view.pixel))
    return view.start + sum((count - 1) * stride for count, stride in spans) + view.lanes


def check(plan: Plan) -> None:
    """Assert that arguments are complete, aligned and within the arena, and that buffers in use never meet."""
    last: dict[int, int] = {}
    first: dict[int, int] = {}
    ends: dict[int, int] = {}
    for i, step in enumerate(plan.steps):
        assert len(step.signature()) == len(step.kernel.parameters)
        assert 1 <= step.geometry.threads <= 1024
        assert 1 <= step.geometry.grid[0] <= MOST_BLOCKS and max(step.geometry.grid[1:]) <= 65535
        for argument in step.arguments.values():
            if isinstance(argument, Address):
                aligned(argument.view)
                view = argument.view.words
                first.setdefault(view.buffer, i)
                last[view.buffer] = i
                ends[view.buffer] = max(ends.get(view.buffer, 0), extent(view, plan.images))
    places = {b: (plan.offsets[b], plan.offsets[b] + ends[b]) for b in ends}
    assert all(start >= 0 and end <= plan.arena_floats for start, end in places.values())
    for a in places:
        for b in places:
            if a < b and first[a] <= last[b] and first[b] <= last[a]:
                assert places[a][1] <= places[b][0] or places[b][1] <= places[a][0], (a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_lowers(name: str) -> None:
    plan = plan_of(name, 2)
    check(plan)
    outer = [any(isinstance(a, Port) for a in s.arguments.values()) for s in plan.steps]
    first, end = plan.inner
    assert outer == [True] * first + [False] * (end - first) + [True] * (len(outer) - end)


@pytest.mark.parametrize("target", [Target((7, 5), 40), Target((8, 6), 20), Target((9, 0), 132)], ids=str)
@pytest.mark.parametrize("images", [1, 64])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "dcgan_generator"])
def test_whatever_the_card(name: str, images: int, target: Target) -> None:
    for precision in PRECISIONS if target.cc >= TENSOR_CAPABILITY else PRECISIONS[:1]:
        check(plan_of(name, images, precision, target))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operator_lowers(case: Any) -> None:
    for images in (1, 3):
        check(make_plan(rewrite(graph_of(case.op, case.types)), Unpacked({}), images))


def test_a_dense_block_copies_nothing() -> None:
    body = "conv 16 1x1\n repeat 3 { branches concat { skip\n batchnorm | relu | conv 16 3x3 pad=1 } }"
    plan = plan_of(f"netdsl 1\nnet sample {{\n  input x 8x9x10\n{body}\n}}\n", 1)
    assert "gather" not in {s.kernel.factory for s in plan.steps}


def test_a_residual_block_holds_two_maps() -> None:
    body = "1x1 16\n repeat 4 { residual { conv 16 3x3 pad=1 | relu | conv 16 3x3 pad=1 }\n relu }"
    plan = plan_of(f"netdsl 1\nnet sample {{\n  input x 8x32x32\n{body}\n}}\n", 1)
    map_floats = 16 * 32 * 32
    assert plan.arena_floats < 3.1 * map_floats


def stored(body: str, precision: str = "float16") -> list[str]:
    """The type in memory of the input and of each operation's result, in order."""
    graph = rewrite(build(f"netdsl 1\nnet sample {{\n  input x 8x6x7\n{body}\n}}\n"))
    types = tensor_types(graph, precision)
    assert len(types) == len(graph.nodes)
    return [f"{node.op.name} {dtype}" for node, dtype in zip(graph.nodes, types, strict=True)]


def test_the_type_of_each_tensor() -> None:
    assert stored("conv 8 3x3 | relu | maxpool 2x2 | flatten | dense 9 | softmax") == [
        "input float16", "conv float16", "maxpool float16", "flatten float16", "dense float32", "softmax float32"
    ]  # fmt: skip
    read_on = stored("conv 8 3x3\n output one\n conv 8 3x3\n output two")
    assert read_on[1:] == ["conv float16", "conv float32"]
    joined = stored("branches concat { conv 8 1x1\n conv 5 3x3 pad=1 | gelu }\n flatten", "bfloat16")
    assert joined[0] == "input bfloat16" and all("float32" in tensor for tensor in joined[1:])
    assert stored("relu | softmax | conv 8 1x1")[1:] == ["relu float32", "softmax float16", "conv float32"]
    for precision in ("float32", "tf32"):
        assert all("float32" in tensor for tensor in stored("conv 8 3x3 | flatten | dense 9", precision))


def test_maps_of_halves_take_half_the_memory() -> None:
    body = "1x1 16\n repeat 2 { residual { conv 16 3x3 pad=1 | relu | conv 16 3x3 pad=1 }\n relu }\n avgpool global"
    text = f"netdsl 1\nnet sample {{\n  input x 8x32x32\n{body}\n}}\n"
    whole, half = (plan_of(text, 64, precision).arena_floats for precision in ("tf32", "float16"))
    assert half <= 0.51 * whole


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operator_lowers_in_half_precision(case: Any) -> None:
    plan = make_plan(rewrite(graph_of(case.op, case.types)), Unpacked({}), 3, "float16")
    check(plan)
    addressed = [a for s in plan.steps for a in s.arguments.values() if isinstance(a, Address)]
    assert {a.view.multiple for a in addressed if a.view.dtype == "float16"} <= {8}


def test_a_place_counts_elements_of_its_type() -> None:
    view, words = layout(TensorType((20, 3, 2)), "float16", 8)
    assert (view.pixel, view.row, view.image, words) == (24, 48, 144, 72)
    assert Address(view, 5).within(100) == 205
    assert (view.words.lanes, view.words.pixel, view.words.image, view.words.dtype) == (12, 12, 72, "float32")


def test_flattening_for_dense_layers_moves_nothing() -> None:
    text = "netdsl 1\nnet sample {\n  input x 5x3x4\n  relu | flatten | dense 7\n}\n"
    assert [s.kernel.factory for s in plan_of(text, 1).steps if s.node.endswith("flatten")] == []


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2**31, 2**33 + 5, MOST_BLOCKS * BLOCK])
def test_one_thread_for_each_value(count: int) -> None:
    geometry = one_each(count)
    assert geometry.grid[0] * geometry.threads >= count > (geometry.grid[0] - 1) * geometry.threads
    assert geometry.grid[0] <= MOST_BLOCKS


@pytest.mark.parametrize(("count", "threads"), [(1, 32), (32, 32), (33, 64), (100, 128), (256, 256), (9999, 256)])
def test_a_team_is_a_power_of_two(count: int, threads: int) -> None:
    assert team(count) == threads
    assert block_each(7, threads).threads == threads and block_each(7, threads).grid == (7, 1, 1)


def test_beyond_two_to_the_31_floats_places_stay_exact() -> None:
    text = "netdsl 1\nnet sample {\n  input x 16x512x512\n  relu | 1x1 16 | maxpool 2x2\n}\n"
    plan = plan_of(text, 1024)
    check(plan)
    assert plan.arena_floats > 2**32
    relu = next(s for s in plan.steps if s.kernel.factory == "unary")
    assert relu.geometry.grid[0] * relu.geometry.threads * LANES >= 1024 * 16 * 512 * 512
    assert all(kind == "int64" for kind in relu.signature() if kind.startswith("int"))


@pytest.mark.parametrize(("channels", "lanes"), [(1, 4), (4, 4), (5, 8), (1000, 1000), (1001, 1004)])
def test_pixels_are_padded_to_sixteen_bytes(channels: int, lanes: int) -> None:
    assert padded(channels) == lanes
    view, floats = layout(TensorType((channels, 3, 2)))
    assert (view.pixel, view.row, view.image, floats) == (lanes, 2 * lanes, 6 * lanes, 6 * lanes)
    assert view.flat
    assert layout(TensorType((channels,)))[1] == lanes


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_phases_stamp_what_a_transposed_convolution_stamps(kernel: int, stride: int, dilation: int) -> None:
    length, pad = 4, 1
    op = Deconv(1, (kernel, 1), (stride, 1), (pad, 0, 0, 0), (0, 0), (dilation, 1))
    out = (length - 1) * stride + dilation * (kernel - 1) + 1 - pad
    stamped = {(i * stride + r * dilation - pad, i, r) for i in range(length) for r in range(kernel)}
    found = set()
    for a, (count, cells, offsets) in enumerate(deconv_phases(op, 0, out)):
        assert len({later - earlier for earlier, later in pairwise(offsets)}) <= 1
        for j in range(count):
            found |= {(a + j * stride, j + o, r) for r, o in zip(cells, offsets, strict=True) if 0 <= j + o < length}
    assert found == {s for s in stamped if 0 <= s[0] < out}
