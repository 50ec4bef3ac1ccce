"""Winograd's algorithm on a GPU: its transforms are the matrices, its kernels agree with the definition, it is taken
where the estimates say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from emulated import LACK, enter
from simulated import Simulator, simulator
from test_cuda_plan import Unpacked

from netdsl.backends import reference
from netdsl.backends.cuda.packing import pack_gemm
from netdsl.backends.cuda.program import Plan, make_plan
from netdsl.backends.cuda.tiles import ConvShape, Target, best_tile, cycles
from netdsl.backends.cuda.views import Address
from netdsl.backends.cuda.winograd import SIZES, TOGETHER, WORTH, best_patches, pack_winograd, patches, winograd_cycles
from netdsl.graph.build import build
from netdsl.passes import rewrite
from netdsl.plan.winograd import inputs, output
from netdsl.weights import random_weights

Array = np.ndarray[Any, Any]

SHAPE = ConvShape(64, 56, 56, 64, 64, (3, 3), (1, 1), False, None, "float32", False, 1, (1, 1))
H200 = Target((9, 0), 132)


def _lines(m: int) -> tuple[Array, Array]:
    """What the transforms make of each unit vector."""
    from netdsl.backends.cuda.kernels.winograd import backward, forward

    n = m + 2
    there, back = np.eye(n, dtype=np.float32), np.eye(n, dtype=np.float32)
    for i in range(n):
        forward(m)(there[i], 0, 1)
        backward(m)(back[i], 0, 1)
    return there.T, back.T[:m]


@pytest.mark.parametrize("m", SIZES)
def test_transforms_are_the_matrices(simulate: Simulator, m: int) -> None:
    there, back = simulate.apply(_lines, m)
    assert np.array_equal(there, np.array(inputs(m + 2), float))
    assert np.array_equal(back, np.array(output(m, 3), float))


@pytest.mark.parametrize("m", SIZES)
def test_packed_weights_give_a_correlation(m: int) -> None:
    """The whole algorithm in NumPy, from the packed weights that the products read."""
    rng, n = np.random.default_rng(0), m + 2
    weight, x = rng.standard_normal((5, 3, 3, 3)).astype(np.float32), rng.standard_normal((3, n, n))
    packed = pack_winograd(weight, m, 4)
    assert packed.shape == (n * n * 8, 1, 1, 4) and not packed.reshape(n * n, 8, 4)[:, 5:].any()
    there, back = np.array(inputs(n), float), np.array(output(m, 3), float)
    v = np.einsum("ia,cab,jb->ijc", there, x, there).reshape(n * n, 3)
    sums = np.einsum("pkc,pc->pk", packed.reshape(n * n, 8, 4)[:, :5, :3], v).reshape(n, n, 5)
    found = np.einsum("ai,ijk,bj->kab", back, sums, back)
    wanted = [[[(weight[k] * x[:, p : p + 3, q : q + 3]).sum() for q in range(m)] for p in range(m)] for k in range(5)]
    assert np.abs(found - wanted).max() <= 4e-6 * np.abs(wanted).max()
    assert pack_gemm(packed, n * n, "float32").size == n * n * 16 * 8


@contextmanager
def _always(m: int, together: int) -> Iterator[None]:
    """Every convolution that can, by patches of one size, so many floats of V and M together."""
    from netdsl.backends.cuda import winograd

    kept = {name: getattr(winograd, name) for name in ("SIZES", "WORTH", "FEWEST", "TOGETHER")}
    winograd.SIZES, winograd.WORTH, winograd.FEWEST, winograd.TOGETHER = (m,), 1e9, 1, together
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(winograd, name, value)


def _forced(text: str, weights: Mapping[str, Any], x: Array, m: int, together: int) -> tuple[list[Array], list[str]]:
    from netdsl.backends.cuda import program as cuda

    with _always(m, together):
        program = cuda.lower(build(text), weights)
        answers = [program([x])[0] for _ in range(2)]
        return answers, [step.kernel.factory for step in program.plan(len(x)).steps]


BODIES = {
    "one layer": "conv 5 3x3 pad=1",
    "uneven padding": "conv 6 3x3 pad=(2,0,1,3) | relu",
    "no padding": "conv 4 3x3 | silu",
    "a residual": "conv 8 3x3 pad=1 | relu\n residual { conv 8 3x3 pad=1 | relu | conv 8 3x3 pad=1 }\n relu",
    "within a concatenation": "branches concat { conv 4 3x3 pad=1 | relu6\n conv 8 3x3 pad=1\n skip }",
    "transposed": "deconv 4 5x5 stride=2 pad=2",
}
TURNS = {"one turn": TOGETHER, "turns of an image": 1, "turns of two": 7000}


def agrees(running: Simulator, name: str, m: int, images: int, together: int) -> list[str]:
    """Assert that a body agrees with its definition; the steps that it took."""
    text = f"netdsl 1\nnet sample {{\n  input x 3x7x9\n{BODIES[name]}\n}}\n"
    graph = build(text)
    weights = random_weights(graph, 3)
    x = np.random.default_rng(2).standard_normal((images, 3, 7, 9)).astype(np.float32)
    (expected,) = reference.run(graph, weights, [x])
    answers, steps = running.apply(_forced, text, weights, x, m, together)
    assert "winograd_products" in steps
    for found in answers:
        assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
    assert np.array_equal(*answers)
    return steps


def test_a_layer_in_the_simulator(simulate: Simulator) -> None:
    assert agrees(simulate, "one layer", 4, 1, TOGETHER).count("winograd_products") == 1


@pytest.fixture(scope="module")
def emulate() -> Iterator[Simulator]:
    with simulator(enter) as running:
        yield running


@pytest.mark.skipif(bool(LACK), reason=LACK)
@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("name", BODIES)
def test_layers_as_compiled(emulate: Simulator, name: str, m: int) -> None:
    agrees(emulate, name, m, 2, TOGETHER)


@pytest.mark.skipif(bool(LACK), reason=LACK)
@pytest.mark.parametrize("turns", TURNS)
def test_images_go_through_a_layer_in_turns(emulate: Simulator, turns: str) -> None:
    steps = agrees(emulate, "a residual", 4, 5, TURNS[turns])
    assert steps.count("winograd_products") == 3 * {"one turn": 1, "turns of an image": 5, "turns of two": 3}[turns]


def planned(name: str, images: int, exact: bool = False, precision: str = "float32") -> Plan:
    return make_plan(rewrite(build(name)), Unpacked({}), images, precision, H200, exact)


def kernels(plan: Plan) -> set[str]:
    return {step.kernel.factory for step in plan.steps}


def test_large_layers_take_it_unless_exact_or_on_tensor_cores() -> None:
    assert "winograd_products" in kernels(planned("vgg16_bn", 8))
    for other in (planned("vgg16_bn", 8, exact=True), planned("vgg16_bn", 8, precision="tf32")):
        assert not any(name.startswith("winograd") for name in kernels(other))
    assert not any(name.startswith("winograd") for name in kernels(planned("lenet5", 64)))


CHANGES: dict[str, dict[str, Any]] = {
    "a stride": {"stride": (2, 2)}, "a dilation": {"dilation": (2, 2)}, "another window": {"kernel": (5, 5)},
    "groups": {"groups": 2}, "tensor cores": {"precision": "tf32"}, "half precision": {"precision": "float16"},
    "few channels": {"channels": 3}, "few features": {"features": 8}, "no image": {"images": 0},
    "one pixel": {"images": 1, "height": 1, "width": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_where_it_is_not_taken(name: str) -> None:
    assert best_patches(SHAPE, H200) is not None
    assert best_patches(replace(SHAPE, **CHANGES[name]), H200) is None


@pytest.mark.parametrize("images", [1, 3, 17, 64, 1000])
@pytest.mark.parametrize("m", SIZES)
def test_turns_bound_the_memory_and_are_of_like_size(m: int, images: int) -> None:
    cut = patches(replace(SHAPE, images=images), m)
    assert cut.floats(64) * 2 <= TOGETHER and cut.products.images == cut.turn
    turns = -(-images // cut.turn)
    assert (turns - 1) * cut.turn < images <= turns * cut.turn and turns * cut.turn - images < turns
    huge = patches(replace(SHAPE, images=4, height=4000, width=4000), m)
    assert huge.turn == 1


def test_the_choice_is_that_of_the_estimates() -> None:
    cut = best_patches(SHAPE, H200)
    assert cut is not None
    costs = {m: winograd_cycles(SHAPE, H200, patches(SHAPE, m)) for m in SIZES}
    assert costs[cut.m] == min(costs.values()) <= WORTH * cycles(SHAPE, H200, *best_tile(SHAPE, H200))


def test_too_large_a_layer_is_not_counted_in_32_bits() -> None:
    assert best_patches(replace(SHAPE, images=1, height=60_000, width=60_000), H200) is None
    assert best_patches(replace(SHAPE, images=1, height=300_000, width=56), H200) is None  # a corner takes 16 bits
    assert best_patches(replace(SHAPE, images=1, height=30_000, width=56), H200) is not None


def test_each_turn_has_its_own_images() -> None:
    plan = planned("vgg16_bn", 8)
    first = [s for s in plan.steps if s.kernel.factory == "winograd_input"]
    mine = [s for s in first if s.node == first[0].node]
    starts = [s.arguments["x"].offset for s in mine if isinstance(s.arguments["x"], Address)]
    images = [s.arguments["images"] for s in mine]
    step = mine[0].arguments["x_image"]
    assert len(mine) > 1 and sum(images) == 8  # type: ignore[arg-type]
    assert starts == [sum(images[:i]) * step for i in range(len(mine))]  # type: ignore[arg-type,operator]


def test_scratch_is_shared_by_layers_and_turns() -> None:
    plain, quick = planned("vgg16_bn", 64, exact=True).arena_floats, planned("vgg16_bn", 64).arena_floats
    assert quick <= plain + 2 * TOGETHER
