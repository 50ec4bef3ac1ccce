"""Kernels as they are compiled, PTX, run by a machine made of NumPy that no rule escapes: every tile, every operator,
networks through the driver's interface. What this shows beside the simulator: numbers of 32 and 64 bits as they are,
instructions of tensor cores and asynchronous copies themselves, arguments as packed, and that no thread touches what
another touches unless something orders them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import LACK, FarCard, enter, enter_large, placed, ptx_of, run
from simulated import Simulator, simulator
from test_cuda_gpu import PARAMS, SIZES
from test_cuda_nets import HALVES, NETS, agrees, network
from test_cuda_operators import close

from cuda_convolutions import Case, arguments, draw, expected, lanes
from golden_tensors import golden_input, golden_tensor
from netdsl.backends.cuda.tiles import (
    FEW_IMAGES,
    FMA_TILES,
    MMA_TILES,
    Choice,
    Target,
    Tile,
    choose,
    depthwise_choice,
    gemm_choice,
    gemv_choice,
)  # fmt: skip
from netdsl.backends.cuda.views import LANES
from netdsl.graph.build import build
from ptx.machine import Machine
from ptx.memory import Fault
from ptx.text import parse
from ptx.traffic import Traffic
from shapes import CASES
from shapes import Case as OperatorCase
from tangles import CONCATS, RESIDUALS, REWRITTEN, kept_by

pytestmark = pytest.mark.skipif(bool(LACK), reason=LACK)

TURING, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)
WITHIN = {"float32": 1e-6, "tf32": 1e-3, "float16": 1e-3, "bfloat16": 8e-3}  # of the largest value
CASE = Case(2, 36, 200, 13, 11, (3, 3), (1, 1), (1, 1, 1, 1), residual=True, low=0.0)
GOLDEN = Path(__file__).parent.parent / "golden" / "networks"


@pytest.fixture(scope="session")
def emulate() -> Iterator[Simulator]:
    with simulator(enter) as running:
        yield running


def check(case: Case, choice: Choice, capability: tuple[int, int] = HOPPER) -> None:
    """One convolution by one kernel against the definition."""
    data = draw(case)
    found, counters, again = run(case, choice, data, capability)
    wanted = expected(case, data)
    result = found[..., : case.features].transpose(0, 3, 1, 2)
    assert np.abs(result - wanted).max() <= WITHIN[case.precision] * np.abs(wanted).max()
    whole = lanes(case, case.features)
    assert np.array_equal(found[..., :whole], again[..., :whole]) and not counters.any()
    assert not case.apart or np.isnan(found[..., whole:]).all()  # what lies beside is not touched


@pytest.mark.parametrize("capability", [TURING, HOPPER], ids=["sm_75", "sm_90"])
@pytest.mark.parametrize("tile", FMA_TILES, ids=lambda t: f"{t.block_m}x{t.block_n}")
def test_float32_tiles(tile: Tile, capability: tuple[int, int]) -> None:
    for splits in (1, 3):
        check(CASE, gemm_choice(CASE.shape, Target(capability), tile, splits), capability)


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("tile", MMA_TILES, ids=lambda t: f"{t.block_m}x{t.block_n}")
def test_tensor_core_tiles(tile: Tile, precision: str) -> None:
    case = replace(CASE, precision=precision)
    for splits in (1, 3):
        check(case, gemm_choice(case.shape, Target(), tile, splits))


VARIED = {
    "stride, dilation, padding": replace(CASE, stride=(2, 1), dilation=(1, 2), pad=(2, 0, 1, 3), function="silu"),
    "groups": replace(CASE, channels=48, features=96, groups=2, residual=False),
    "within a concatenation": replace(CASE, channels=7, features=10, apart=8),
    "a function afterwards": replace(CASE, function="gelu"),
    "one tap": Case(3, 64, 33, 5, 7),
}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", VARIED)
def test_convolutions(name: str, precision: str) -> None:
    case = replace(VARIED[name], precision=precision)
    data, choice = draw(case), choose(case.shape, Target())
    assert choice is not None
    if case.function is None:
        return check(case, choice)
    found, *_ = run(case, choice, data, HOPPER)
    wanted = {"silu": lambda x: x / (1 + np.exp(-x)), "gelu": gelu}[case.function](expected(case, data))
    result = found[..., : case.features].transpose(0, 3, 1, 2)
    assert np.abs(result - wanted).max() <= 2 * WITHIN[precision] * np.abs(wanted).max()


def gelu(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from math import erf

    return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("images", [1, 2, 3, FEW_IMAGES])
def test_products_of_few_images(images: int, precision: str) -> None:
    case = Case(images, 1000, 70, 1, 1, residual=images == 2, precision=precision)
    check(case, gemv_choice(case.shape, Target()))


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (1, 1)), ((3, 3), (2, 2)), ((5, 5), (1, 1)), ((7, 7), (1, 1))])
def test_depthwise(kernel: tuple[int, int], stride: tuple[int, int], precision: str) -> None:
    side = kernel[0] // 2
    case = Case(2, 20, 20, 15, 14, kernel, stride, (side,) * 4, groups=20, residual=True, precision=precision)
    choice = depthwise_choice(case.shape)
    assert choice is not None
    check(case, choice)


ALIKE = Case(2, 64, 96, 9, 16, (3, 3), (1, 1), (1, 1, 1, 1), residual=True)  # nothing past an edge
TILES = [(tile, "float32") for tile in FMA_TILES]
TILES += [(tile, precision) for tile in MMA_TILES for precision in ("tf32", "float16")]


@pytest.mark.parametrize(
    ("tile", "precision"), TILES, ids=lambda v: v if isinstance(v, str) else f"{v.block_m}x{v.block_n}"
)
def test_tiles_move_no_more_than_they_need(tile: Tile, precision: str) -> None:
    """Every sector that is loaded or stored is wanted whole, and nobody waits for a bank of shared memory."""
    case, traffic = replace(ALIKE, precision=precision), Traffic()
    run(case, gemm_choice(case.shape, Target(), tile, 2), draw(case), HOPPER, traffic=traffic)
    assert traffic.waves == traffic.least > 0
    assert traffic.carried["store"] <= 1.01 * traffic.asked["store"]  # counters are single words
    assert traffic.carried["load"] <= 1.01 * traffic.asked["load"]


FAR = {
    "float32": (FMA_TILES[-1], replace(CASE, images=3, features=20)),
    "tf32": (MMA_TILES[-1], replace(CASE, images=3, features=20, precision="tf32")),
    "depthwise": (None, Case(3, 20, 20, 9, 8, (3, 3), (1, 1), (1, 1, 1, 1), groups=20, residual=True)),
}


@pytest.mark.parametrize("name", FAR)
def test_images_that_lie_two_to_the_32_floats_apart(name: str) -> None:
    """No place is counted in 32 bits on its way into machine code."""
    tile, case = FAR[name]
    choice = depthwise_choice(case.shape) if tile is None else gemm_choice(case.shape, Target(), tile, 2)
    assert choice is not None
    data = draw(case)
    named, _ = arguments(case, choice, data)
    card = FarCard(1 << 22)
    images = {n: named[f"{n}_image"] for n in "xry"}
    card.image = 4 * max(images.values())
    arena, size = named["arena"], case.images * card.image // 4
    apart = np.full(3 * size + choice.scratch, np.nan, np.float32)
    for i, n in enumerate("xry"):
        for k in range(case.images):
            part = arena[named[n] + k * images[n] :][: images[n]]
            apart[i * size + k * card.image // 4 :][: images[n]] = part
    moved = {n: i * size for i, n in enumerate("xry")} | {f"{n}_image": 1 << 32 for n in "xry"}
    words, places = placed(card, choice.kernel, named | moved | {"arena": apart, "scratch": 3 * size})
    with np.errstate(all="ignore"):
        code = parse(ptx_of(case, choice, HOPPER))
        Machine(card).launch(code, choice.geometry.grid, choice.geometry.block, words)
    out = card.view(places["arena"], apart.size, np.float32)[2 * size : 3 * size].reshape(case.images, -1)
    found = out[:, : images["y"]].reshape(case.images, *case.size, -1)[..., : case.features].transpose(0, 3, 1, 2)
    wanted = expected(case, data)
    assert np.abs(found - wanted).max() <= WITHIN[case.precision] * np.abs(wanted).max()


BROKEN = {
    "no barrier before a slice is multiplied": (r"(?s)(cp\.async\.wait_group \d;.*?)bar\.sync \t0;", r"\1", 1),
    "a slice is not waited for": (r"cp\.async\.wait_group (\d);", "cp.async.wait_group 9;", 1),
    "a slice too few is waited for": (r"cp\.async\.wait_group 2;", "cp.async.wait_group 3;", 1),
    "groups of copies are not closed": (r"cp\.async\.commit_group;", "", 0),
    "sums are not made visible": (r"membar\.gl;", "", 0),
    "the sums are read by whoever comes first": (
        r"atom\.global\.add\.u32 \t(%r\d+), \[%rd\d+\], 1;",
        r"mov.u32 \1, 2;",
        1,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_does_not_pass(name: str) -> None:
    """The rules are seen to: a kernel that lacks one of the things that hold it together fails."""
    pattern, instead, count = BROKEN[name]
    choice = gemm_choice(CASE.shape, Target(), FMA_TILES[-1], 3)
    whole = ptx_of(CASE, choice, HOPPER)
    broken, found = re.subn(pattern, instead, whole, count=count)
    assert found >= 1
    with pytest.raises(Fault, match=r"orders them|on its way|at once"):
        run(CASE, choice, draw(CASE), HOPPER, parse(broken))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operators(emulate: Simulator, case: OperatorCase) -> None:
    close(emulate, case, 2)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_maps_in_half_precision(emulate: Simulator, case: OperatorCase) -> None:
    close(emulate, case, 1, ("float16", "bfloat16")[len(str(case)) % 2], alone=False)


SMALL = {name: network(body) for name, body in (NETS | REWRITTEN).items()}
SMALL |= {f"joined, {name}": network(kept_by(LANES, body)) for name, body in CONCATS.items()}
SMALL |= {f"added, {name}": network(kept_by(LANES, body)) for name, body in RESIDUALS.items()}


@pytest.mark.parametrize("name", SMALL)
def test_networks(emulate: Simulator, name: str) -> None:
    agrees(emulate, SMALL[name])


@pytest.mark.parametrize("name", [*HALVES][::2])
def test_networks_in_half_precision(emulate: Simulator, name: str) -> None:
    agrees(emulate, HALVES[name], batch=1, calls=2, precision="float16")


def _golden(name: str, precision: str) -> list[np.ndarray[Any, Any]]:
    import netdsl

    graph = build(name, params=PARAMS.get(name), input_shapes=SIZES.get(name))
    weights = {tensor: golden_tensor(tensor, shape) for tensor, shape in graph.tensors.items()}
    net = netdsl.compile(graph, weights=weights, device="cuda", precision=precision)
    out = net(golden_input(FACTS[name]["input"])[:1])
    return [*out.values()] if isinstance(out, dict) else [out]


FACTS = json.loads((GOLDEN / "facts.json").read_text())
SLOW = pytest.mark.slow
WHOLE = [("lenet5", "float32"), ("mobilenet_v2", "float16")]
REST = [(name, "float32") for name in FACTS if name != "lenet5"]
REST += [("resnet18", "tf32"), ("squeezenet1_1", "bfloat16")]


@pytest.fixture(scope="module")
def large() -> Iterator[Simulator]:
    with simulator(enter_large) as running:
        yield running


@pytest.mark.parametrize(("name", "precision"), [*WHOLE, *(pytest.param(*rest, marks=SLOW) for rest in REST)])
def test_golden_answers(large: Simulator, name: str, precision: str) -> None:
    """Whole networks as users call them, against the answers of another engine."""
    for y, wanted in zip(large.apply(_golden, name, precision), np.load(GOLDEN / f"{name}.npz").values(), strict=True):
        within = 1e-5 if precision == "float32" else 1e-2
        assert np.abs(y - wanted[:1]).max() <= within * np.abs(wanted[:1]).max()
