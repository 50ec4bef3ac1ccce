"""Every operator's definition against loops over single values."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl.ops import conv, deconv, filter, pool
from shapes import CASES, MAKERS, Case, assert_close, op_cases, random_inputs, random_params, tolerance


def check(case: Case, batch: int, seed: int) -> None:
    """Float64 to rounding, float32 within what its length of reduction allows; shapes, batch 0 and dtypes exact."""
    rng = np.random.default_rng(seed)
    params, inputs = random_params(case.op, case.types, rng), random_inputs(case.op, case.types, batch, rng)
    out = case.op.infer(*case.types)
    expected = naive.evaluate(case.op, {role: p.astype(np.float64) for role, p in params.items()}, inputs, out.shape)
    for dtype in (np.float64, np.float32):
        found = case.op.reference({r: p.astype(dtype) for r, p in params.items()}, *(x.astype(dtype) for x in inputs))
        assert found.dtype == dtype
        assert found.shape == (batch, *out.shape)
        assert_close(found, expected, tolerance(case.op, case.types, dtype))


@pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)
def test_every_operator(kind) -> None:
    @settings(max_examples=25, deadline=None)
    @given(case=op_cases((kind,), small=True), batch=st.sampled_from((0, 1, 1, 3)), seed=st.integers(0, 99))
    def run(case: Case, batch: int, seed: int) -> None:
        check(case, batch, seed)

    run()


@settings(max_examples=60, deadline=None)
@given(case=op_cases((conv.Conv, deconv.Deconv, filter.Filter), small=True), batch=st.sampled_from((0, 1, 2)))
def test_convolutions(case: Case, batch: int) -> None:
    check(case, batch, 1)


@settings(max_examples=60, deadline=None)
@given(case=op_cases((pool.MaxPool, pool.AvgPool, pool.LpPool), small=True))
def test_pooling(case: Case) -> None:
    check(case, 1, 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shape_rule_of_every_fixed_case(case: Case) -> None:
    rng = np.random.default_rng(0)
    inputs = random_inputs(case.op, case.types, 2, rng)
    y = case.op.reference(random_params(case.op, case.types, rng), *inputs)
    assert y.shape == (2, *case.op.infer(*case.types).shape)
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
