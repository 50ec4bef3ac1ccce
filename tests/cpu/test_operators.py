"""Every operator's CPU lowering against its definition, over the shapes that all backends share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl.backends import cpu, reference
from netdsl.ops.conv import Conv
from netdsl.ops.dense import Dense
from netdsl.tensor import TensorType
from shapes import CASES, Case, graph_of, op_cases, random_inputs, random_params


def close(case: Case, batch: int, threads: int = 2, seed: int = 0) -> None:
    """Assert that the CPU program and the float64 definition agree within float32's rounding."""
    rng = np.random.default_rng(seed)
    graph = graph_of(case.op, case.types)
    weights = {f"layer.{r}": v for r, v in random_params(case.op, case.types, rng).items()}
    inputs = random_inputs(case.op, case.types, batch, rng)
    program = cpu.lower(graph, weights, threads)
    with np.errstate(invalid="ignore", divide="ignore"):
        (expected,) = reference.run(graph, weights, inputs)
    (found,) = program(inputs)
    assert found.dtype == np.float32 and found.shape == expected.shape
    terms = math.prod(case.op.params(*case.types)["weight"].shape[1:]) if isinstance(case.op, (Conv, Dense)) else 16
    scale = max(1.0, float(np.nanmax(np.abs(expected[np.isfinite(expected)]), initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=3e-7 * scale * (4 + math.sqrt(terms)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fixed_cases(case: Case) -> None:
    close(case, batch=1)


@given(case=op_cases(small=True), batch=st.sampled_from([0, 1, 2, 3, 5]), threads=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_drawn_cases(case: Case, batch: int, threads: int) -> None:
    close(case, batch, threads)


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_batches(case: Case) -> None:
    close(case, batch=3)


@pytest.mark.parametrize(
    "channels, features, groups", [(40, 256, 4), (24, 192, 3), (20, 128, 4), (10, 64, 2), (9, 48, 3)]
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_groups_that_begin_within_a_block(channels: int, features: int, groups: int, kernel: int) -> None:
    """Tiles of outputs begin to read in the middle of a block of 16, 8 or 4 channels and end in the next."""
    op = Conv(features, (kernel, kernel), pad=(kernel // 2,) * 4, groups=groups)
    close(Case(op, (TensorType((channels, 7, 9)),)), batch=2)
