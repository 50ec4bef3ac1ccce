"""What to run first on a GPU: one thing after another, from memory to a whole call: a failure shows its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import netdsl
from cuda_convolutions import Case, draw, expected, lanes, run
from netdsl.backends import reference
from netdsl.backends.cuda import device, winograd
from netdsl.backends.cuda.staging import LARGEST, SMALLEST, staging
from netdsl.backends.cuda.steps import Kernel, one_each
from netdsl.backends.cuda.tiles import (
    FEW_IMAGES,
    FMA_TILES,
    MMA_TILES,
    Choice,
    Target,
    Tile,
    depthwise_choice,
    gemm_choice,
    gemv_choice,
)  # fmt: skip
from netdsl.backends.cuda.winograd import SIZES
from netdsl.graph.build import build
from netdsl.profiles import Phases
from netdsl.weights import random_weights

pytestmark = pytest.mark.cuda

TEXT = "netdsl 1\nnet one {\n  input image 3x17x19\n  conv 24 3x3 pad=1 | relu | maxpool 2x2\n  flatten | dense 7\n}\n"
WITHIN = {"float32": 2e-6, "tf32": 2e-3, "float16": 2e-3, "bfloat16": 2e-2}  # of the largest value


def test_the_card_is_found_and_described() -> None:
    card, told = device.find(), device.facts()
    assert card.capability >= (7, 5) and card.multiprocessors > 0 and card.memory_bytes > 2**30
    assert told["card"] == card.name and told["versions"]["numba-cuda"]


@pytest.mark.parametrize("size", [1, 1000, SMALLEST, 4 * SMALLEST + 3, 3 * LARGEST + 1])
def test_arrays_go_there_and_back_through_page_locked_memory(size: int) -> None:
    runtime = device.runtime()
    way, stream, x = staging(runtime, size), runtime.Stream(), np.arange(size, dtype=np.float32)
    assert way is not None  # page-locked memory can be had
    there, back, given = runtime.empty(size), np.zeros(size, np.float32), x.copy()
    way.send(stream, given, there)
    given[:] = -1  # the caller's again
    way.fetch(stream, there, back)
    assert np.array_equal(back, x)


def test_one_kernel_is_launched_alone_and_from_a_graph() -> None:
    runtime, x = device.runtime(), np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    kinds = {"source": "float32[]", "to": "float32[]", "count": "int64"}
    for recorded in (False, True):
        given = {"source": runtime.upload(x), "to": runtime.upload(np.zeros_like(x)), "count": len(x)}
        stream, geometry = runtime.Stream(), one_each(len(x) // 4)
        launch = runtime.Launch(Kernel("measure", "copy"), kinds, geometry, given, device.find().capability)
        if recorded:
            assert runtime.seconds(stream, runtime.LaunchGraph(stream, lambda a=launch, s=stream: a(s))) > 0
        else:
            launch(stream)
        back = np.zeros_like(x)
        stream.fetch(given["to"], back)
        stream.wait()
        assert np.array_equal(back, x)


def check(case: Case, choice: Choice) -> None:
    """One convolution by one kernel against the definition."""
    data = draw(case)
    found, counters, again = run(case, choice, data)
    wanted = expected(case, data)
    result = found[..., : case.features].transpose(0, 3, 1, 2)
    assert np.abs(result - wanted).max() <= WITHIN[case.precision] * np.abs(wanted).max()
    assert np.array_equal(found[..., : lanes(case, case.features)], again[..., : lanes(case, case.features)])
    assert not counters.any()


def here() -> Target:
    card = device.find()
    return Target(card.capability, card.multiprocessors)


CASE = Case(2, 36, 200, 13, 11, (3, 3), (1, 1), (1, 1, 1, 1), residual=True, low=0.0)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("tile", FMA_TILES, ids=lambda t: f"{t.block_m}x{t.block_n}")
def test_float32_tiles(tile: Tile, splits: int) -> None:
    check(CASE, gemm_choice(CASE.shape, here(), tile, splits))


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("tile", MMA_TILES, ids=lambda t: f"{t.block_m}x{t.block_n}")
def test_tensor_core_tiles(tile: Tile, precision: str) -> None:
    if precision not in here().precisions:
        pytest.skip("this card has no such tensor cores")
    case = replace(CASE, precision=precision)
    for splits in (1, 3):
        check(case, gemm_choice(case.shape, here(), tile, splits))


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("images", [1, 3, FEW_IMAGES])
def test_products_of_few_images(images: int, precision: str) -> None:
    if precision not in here().precisions:
        pytest.skip("this card has no such tensor cores")
    case = Case(images, 1000, 70, 1, 1, precision=precision)
    check(case, gemv_choice(case.shape, here()))


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 5), (1, 1))])
def test_depthwise(kernel: tuple[int, int], stride: tuple[int, int]) -> None:
    side = kernel[0] // 2
    case = Case(2, 20, 20, 15, 14, kernel, stride, (side, side, side, side), groups=20)
    choice = depthwise_choice(case.shape)
    assert choice is not None
    check(case, choice)


@pytest.mark.parametrize("images", [1, 9])
@pytest.mark.parametrize("m", SIZES)
def test_winograds_algorithm(m: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZES": (m,), "WORTH": 1e9, "TOGETHER": 1 << 20}.items():
        monkeypatch.setattr(winograd, name, value)
    text = "netdsl 1\nnet one {\n  input x 20x41x37\n  residual { conv 20 3x3 pad=1 }\n  relu\n}\n"
    graph, x = build(text), np.random.default_rng(0).standard_normal((images, 20, 41, 37)).astype(np.float32)
    net, wanted = (
        netdsl.compile(text, "random", device="cuda", seed=1),
        reference.run(graph, random_weights(graph, 1), [x])[0],
    )
    assert any(step.kernel.startswith("winograd") for step in net.profile(x, rounds=1))
    for _ in range(2):
        assert np.abs(net(x) - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.fixture(scope="module")
def one() -> Any:
    graph, x = build(TEXT), np.random.default_rng(0).standard_normal((9, 3, 17, 19)).astype(np.float32)
    return (
        netdsl.compile(TEXT, "random", device="cuda", seed=1),
        x,
        reference.run(graph, random_weights(graph, 1), [x])[0],
    )


def test_a_whole_call(one: Any) -> None:
    net, x, wanted = one
    for _ in range(2):  # recorded, then from the graph
        np.testing.assert_allclose(net(x), wanted, atol=1e-5)


def test_the_parts_of_a_call_take_time(one: Any) -> None:
    net, x, _ = one
    found = net.phases(x, rounds=3)
    assert isinstance(found, Phases) and min(found.to_device, found.compute, found.from_device) > 0


@pytest.mark.parametrize("precision", ["float32", "tf32", "float16"])
def test_no_step_is_faster_than_the_cards_peak(precision: str) -> None:
    if precision not in here().precisions:
        pytest.skip("this card has no such tensor cores")
    net = netdsl.compile("resnet18", "random", device="cuda", precision=precision)
    found = net.profile(np.random.default_rng(0).standard_normal((16, 3, 224, 224)).astype(np.float32), rounds=3)
    assert all(0 <= step.part <= 1.05 for step in found if not step.kernel.startswith("winograd"))
