"""Whole small networks through the CUDA lowering, run by the simulator: joins, residuals, phases, nan, many callers."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import Simulator

from netdsl.backends import reference
from netdsl.backends.cuda.views import LANES
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.weights import random_weights
from tangles import CONCATS, RESIDUALS, REWRITTEN, SPECIAL, kept_by

SMALL = "netdsl 1\nnet sample {{\n  input x {size}\n{body}\n}}\n"


def network(body: str, size: str = "8x5x4") -> Graph:
    return build(SMALL.format(body=body, size=size))


WITHIN = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of the largest value, as of one where it is smaller


def agrees(simulate: Simulator, graph: Graph, batch: int = 2, calls: int = 2, precision: str = "float32") -> None:
    """Assert that so many calls of a network agree with its definition."""
    weights, rng = random_weights(graph, 2), np.random.default_rng(1)
    inputs = [rng.standard_normal((batch, *s.type.shape)).astype(np.float32) for s in graph.inputs]
    answers = reference.run(graph, weights, inputs)
    for found in simulate(graph, weights, *[inputs] * calls, precision=precision):
        for y, expected in zip(found, answers, strict=True):
            assert np.abs(y - expected).max() <= WITHIN[precision] * max(1.0, np.abs(expected).max())


def test_lenet5(simulate: Simulator) -> None:
    agrees(simulate, build("lenet5"), batch=1, calls=1)


NETS = {
    "a residual block": "conv 8 3x3 pad=1 | batchnorm | relu\n residual { conv 8 3x3 pad=1 | batchnorm }\n relu",
    "a bottleneck": "residual { 1x1 4 | relu6 | depthwise 3x3 pad=1 | relu6 | 1x1 8 | batchnorm }",
    "squeeze and excite": "residual { branches mul { skip\n avgpool global | 1x1 4 | silu | 1x1 8 | sigmoid } }",
    "a normalised head": "batchnorm | relu | instancenorm | lrn 3 | avgpool global | flatten | dense 5 | softmax",
    "a flattened map": "conv 6 3x3 | relu | flatten | dense 9 | tanh | dense 3 | logsoftmax",
    "a flattened map as output": "conv 5 1x1 | flatten",
    "up again": "conv 4 2x2 stride=2 | deconv 6 3x3 stride=2 pad=1 output_pad=1 | upsample 2 | crop 5x4",
    "grouped up": "deconv 6 4x4 stride=3 groups=2 dilation=2 | prelu",
    "shuffled": "1x1 12 groups=2 | channelshuffle 3 | pixelshuffle 2 | pad 1 mode=reflect",
    "gates before a map": "a: avgpool global\n from x\n branches mul { from a\n from a\n skip }",
}


@pytest.mark.parametrize("name", NETS)
def test_networks(simulate: Simulator, name: str) -> None:
    agrees(simulate, network(NETS[name]))


@pytest.mark.parametrize("name", CONCATS)
def test_branches_write_into_the_joined_tensor(simulate: Simulator, name: str) -> None:
    agrees(simulate, network(kept_by(LANES, CONCATS[name])))


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_are_overwritten_only_when_nobody_reads_them_later(simulate: Simulator, name: str) -> None:
    agrees(simulate, network(kept_by(LANES, RESIDUALS[name])))


@pytest.mark.parametrize("name", REWRITTEN)
def test_linear_layers_that_are_put_together(simulate: Simulator, name: str) -> None:
    agrees(simulate, network(REWRITTEN[name]))


HALVES = {name: network(body) for name, body in NETS.items()}
HALVES |= {f"joined, {name}": network(kept_by(8, body)) for name, body in CONCATS.items()}
HALVES |= {f"added, {name}": network(kept_by(8, body)) for name, body in RESIDUALS.items()}


@pytest.mark.parametrize("name", HALVES)
def test_networks_in_half_precision(simulate: Simulator, name: str) -> None:
    """Tensors lie beside and over one another as in float32, each type in turn."""
    precision = ("float16", "bfloat16")[[*HALVES].index(name) % 2]
    agrees(simulate, HALVES[name], batch=1, calls=1, precision=precision)


@pytest.mark.parametrize(("precision", "expected"), [("float32", 1e5), ("bfloat16", 1e5), ("float16", np.inf)])
def test_what_float16_cannot_hold_is_infinite(simulate: Simulator, precision: str, expected: float) -> None:
    graph = network("conv 8 1x1\n avgpool global")
    weights = {name: np.zeros_like(w) for name, w in random_weights(graph, 2).items()}
    weights |= {name: np.full_like(w, 125.0) for name, w in weights.items() if w.ndim == 4}
    ((found,),) = simulate(graph, weights, [np.full((1, 8, 5, 4), 100.0, np.float32)], precision=precision)
    np.testing.assert_allclose(found, np.full_like(found, expected), rtol=2**-8)


@pytest.mark.parametrize("name", SPECIAL)
def test_nan_goes_where_the_definition_says_and_nowhere_after(simulate: Simulator, name: str) -> None:
    graph = network(SPECIAL[name], "5x4x6")
    weights = random_weights(graph, 2)
    x = np.random.default_rng(1).standard_normal((2, 5, 4, 6)).astype(np.float32)
    ill = x.copy()
    ill[1, 2, 2, 3] = np.nan
    with np.errstate(invalid="ignore"):
        (expected,) = reference.run(graph, weights, [ill])
    assert np.isnan(expected).any()
    (before,), (found,), (after,) = simulate(graph, weights, [x], [ill], [x])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.array_equal(before, after)


def _in_turns(graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    from netdsl.backends.cuda import program as cuda

    program = cuda.lower(graph, weights)
    whole = program([x])[0]
    program.images_at_once = 2
    return [whole, program([x])[0]]


def test_large_batches_go_in_turns(simulate: Simulator) -> None:
    graph = network("conv 3 3x3 | relu | avgpool global | flatten | dense 2", "2x4x4")
    x = np.random.default_rng(1).standard_normal((5, 2, 4, 4)).astype(np.float32)
    whole, turns = simulate.apply(_in_turns, graph, random_weights(graph, 2), x)
    np.testing.assert_allclose(turns, whole, atol=1e-6)


def _profiled(text: str) -> str:
    import netdsl
    from netdsl.errors import DeviceError

    try:
        netdsl.compile(text, "random", device="cuda").profile(np.ones((1, 2, 3, 3), np.float32))
    except DeviceError as error:
        return error.code
    return "timed"


def test_the_simulator_has_no_clock(simulate: Simulator) -> None:
    assert simulate.apply(_profiled, SMALL.format(body="relu", size="2x3x3")) == "no-profile"


def _compiled(text: str, x: np.ndarray) -> tuple[np.ndarray, str, str]:
    import pickle

    import netdsl

    net = pickle.loads(pickle.dumps(netdsl.compile(text, "random", device="cuda", seed=3)))
    return net(x), net.device, net.device_name


def test_a_compiled_network_says_where_it_runs(simulate: Simulator) -> None:
    text = SMALL.format(body="conv 3 1x1 | flatten | dense 2", size="2x3x3")
    x = np.ones((1, 2, 3, 3), np.float32)
    y, device, name = simulate.apply(_compiled, text, x)
    graph = build(text)
    np.testing.assert_allclose(y, reference.run(graph, random_weights(graph, 3), [x])[0], atol=1e-6)
    assert (device, name) == ("cuda", "the simulator of numba.cuda")
