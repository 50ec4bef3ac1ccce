"""Every operator's CUDA lowering against its definition, run by the simulator on the shapes that all backends share.

The simulator takes a thread of Python for each thread of the GPU, so only shapes that it can afford are run; the larger
ones are run where there is a GPU (`test_cuda_gpu.py`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated import Simulator

from cuda_convolutions import of_bits
from netdsl.backends import reference
from netdsl.backends.cuda.views import padded
from netdsl.graph.ir import Graph, Node, OutputSpec
from netdsl.halves import BITS
from netdsl.ops.activation import Leaky
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.pool import MaxPool
from shapes import CASES, MAKERS, Case, graph_of, random_inputs, random_params, stored

AFFORDABLE = 40_000  # chosen: steps of Python, about a second
THREAD_STEPS = 60  # measured: starting a thread takes the simulator as long as so many loads


def price(case: Case) -> int:
    """About how many steps of Python the simulator takes."""
    y = case.op.infer(*case.types)
    lanes = padded(y.channels) * (y.elements // y.channels)
    window = case.op.window(*case.types)
    loads = math.prod(window.kernel) if window else 1
    if isinstance(case.op, (Conv, Deconv)):
        loads *= 2 * case.types[0].channels // case.op.groups
    return lanes * (THREAD_STEPS + loads)


SMALL = [case for case in CASES if price(case) <= AFFORDABLE]


def test_every_operator_has_cases_that_the_simulator_can_afford() -> None:
    assert {type(case.op) for case in SMALL} == set(MAKERS)
    assert any(isinstance(c.op, Conv) and c.op.groups > 1 for c in SMALL)
    assert any(isinstance(c.op, Deconv) and c.op.groups > 1 for c in SMALL)


def in_half(values: np.ndarray, precision: str) -> np.ndarray:
    """float32 values rounded to what a half can hold, so that what is tested need not round them."""
    return of_bits(BITS[precision](values), precision)


def followed(case: Case) -> Graph:
    """An operator whose result is not the network's, so that it is stored as maps are; its reader changes nothing."""
    graph = graph_of(case.op, case.types)
    kind = graph.nodes[-1].type
    op = MaxPool((1, 1), (1, 1)) if kind.is_map else Leaky(1.0)
    last = Node("last", op, (len(graph.nodes) - 1,), kind)
    return replace(graph, nodes=(*graph.nodes, last), outputs=(OutputSpec("last", len(graph.nodes)),))


def close(simulate: Simulator, case: Case, batch: int, precision: str = "float32", alone: bool = True) -> None:
    """Assert that the program and the float64 definition agree within the rounding of the result."""
    rng = np.random.default_rng(0)
    graph = graph_of(case.op, case.types) if alone else followed(case)
    weights = stored(random_params(case.op, case.types, rng))
    inputs = random_inputs(case.op, case.types, batch, rng)
    if precision != "float32":
        weights = {name: in_half(np.asarray(w, np.float32), precision) for name, w in weights.items()}
        inputs = [in_half(x, precision) for x in inputs]
    ((found,),) = simulate(graph, weights, inputs, precision=precision)
    with np.errstate(invalid="ignore", divide="ignore"):
        (expected,) = reference.run(graph, weights, inputs)
    assert found.dtype == np.float32 and found.shape == expected.shape
    scale = max(1.0, float(np.nanmax(np.abs(expected[np.isfinite(expected)]), initial=0.0)))
    unit = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}[precision]
    np.testing.assert_allclose(found, expected, rtol=2e-5 + unit, atol=4e-6 * scale)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_fixed_cases(simulate: Simulator, case: Case) -> None:
    close(simulate, case, batch=1)


@pytest.mark.parametrize("case", SMALL[::9], ids=str)
@pytest.mark.parametrize("batch", [0, 2])
def test_batches(simulate: Simulator, case: Case, batch: int) -> None:
    close(simulate, case, batch)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_maps_in_half_precision(simulate: Simulator, case: Case) -> None:
    close(simulate, case, 1, ("float16", "bfloat16")[len(str(case)) % 2], alone=False)


@pytest.mark.parametrize("case", SMALL[::5], ids=str)
def test_results_in_float32_of_maps_in_half_precision(simulate: Simulator, case: Case) -> None:
    close(simulate, case, 2, ("float16", "bfloat16")[len(str(case)) % 2])
