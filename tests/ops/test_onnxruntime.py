"""The definitions against ONNX Runtime, an engine by other people."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl.backends.reference import run
from netdsl.graph import library
from netdsl.graph.build import build
from netdsl.onnx_export import EXPORT, to_onnx
from netdsl.ops import conv, deconv, pool
from netdsl.weights import random_weights
from shapes import (
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

onnxruntime = pytest.importorskip("onnxruntime")


def peer(model: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {spec.name: x for spec, x in zip(session.get_inputs(), inputs, strict=True)})


@pytest.mark.parametrize("name", ["lenet5", "kws_dscnn", "resnet20_cifar10", "squeezenet1_1", "filters/sobel"])
def test_whole_networks(name: str) -> None:
    """Names, joins, several layers in a row, and a batch that the model does not fix."""
    rng = np.random.default_rng(8)
    graph = build(library.folder() / f"{name}.net")
    weights = random_weights(graph, seed=3)
    x = rng.standard_normal((2, *graph.inputs[0].type.shape)).astype(np.float32)
    expected = run(graph, weights, [x])
    found = peer(to_onnx(graph, weights), [x])
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-5)


def check(case: Case, batch: int) -> None:
    rng = np.random.default_rng(7)
    graph = graph_of(case.op, case.types)
    weights = stored(random_params(case.op, case.types, rng))
    inputs = random_inputs(case.op, case.types, batch, rng)
    (expected,) = run(graph, weights, inputs)
    (found,) = peer(to_onnx(graph, weights), inputs)
    # The peer's own float32 shortcuts (exp, tanh, erf) are good to about a millionth.
    assert_close(found, expected, tolerance(case.op, case.types) + 2e-6)


def test_every_operator_can_be_exported() -> None:
    assert set(EXPORT) == set(MAKERS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fixed_cases(case: Case) -> None:
    check(case, 2)


@settings(max_examples=60, deadline=None)
@given(case=op_cases(), batch=st.sampled_from((1, 1, 3)))
def test_drawn_cases(case: Case, batch: int) -> None:
    check(case, batch)


@settings(max_examples=60, deadline=None)
@given(case=op_cases((conv.Conv, deconv.Deconv, pool.MaxPool, pool.AvgPool)))
def test_drawn_windows(case: Case) -> None:
    check(case, 1)
