"""PyTorch modules made of graphs, against the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings

torch = pytest.importorskip("torch")

from netdsl.backends.reference import run  # noqa: E402
from netdsl.graph.build import build  # noqa: E402
from netdsl.ops import norm  # noqa: E402
from netdsl.torch_export import EXPORT, Network  # noqa: E402
from netdsl.weights import random_weights  # noqa: E402
from shapes import (  # noqa: E402
    CASES,
    MAKERS,
    Case,
    assert_close,
    graph_of,
    op_cases,
    random_inputs,
    random_params,
    stored,
    tolerance,
)


def check(case: Case, batch: int) -> None:
    rng = np.random.default_rng(7)
    graph = graph_of(case.op, case.types)
    weights = stored(random_params(case.op, case.types, rng))
    inputs = random_inputs(case.op, case.types, batch, rng)
    (expected,) = run(graph, weights, inputs)
    with torch.inference_mode():
        (found,) = Network(graph, weights)(*map(torch.from_numpy, inputs))
    assert_close(found.numpy(), expected, tolerance(case.op, case.types) + 2e-6)


def test_every_operator_can_be_exported() -> None:
    assert set(EXPORT) == set(MAKERS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fixed_cases(case: Case) -> None:
    check(case, 2)


@settings(max_examples=60, deadline=None)
@given(case=op_cases())
def test_drawn_cases(case: Case) -> None:
    assume(not has_single_values(case))  # PyTorch refuses to standardise these
    check(case, 1)


def has_single_values(case: Case) -> bool:
    """Whether what is standardised together is one value."""
    if not isinstance(case.op, norm.InstanceNorm | norm.GroupNorm):
        return False
    channels, *size = case.types[0].shape
    return size == [1, 1] and (not isinstance(case.op, norm.GroupNorm) or case.op.groups == channels)


@pytest.mark.parametrize("name", ["lenet5", "kws_dscnn", "squeezenet1_1", "filters/sobel"])
def test_whole_networks(name: str) -> None:
    rng = np.random.default_rng(8)
    graph = build(name)
    weights = random_weights(graph, seed=3)
    x = rng.standard_normal((2, *graph.inputs[0].type.shape)).astype(np.float32)
    with torch.inference_mode():
        found = Network(graph, weights)(torch.from_numpy(x))
    for one, other in zip(found, run(graph, weights, [x]), strict=True):
        assert_close(one.numpy(), other, 1e-5)
