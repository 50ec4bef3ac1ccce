"""What only a GPU can show: compiled kernels, graphs of launches, streams, arrays that stay there, many callers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netdsl
from golden_tensors import golden_input, golden_tensor
from netdsl.backends import reference
from netdsl.backends.cuda import program as cuda
from netdsl.errors import InputError
from netdsl.graph.build import build
from netdsl.weights import random_weights
from shapes import CASES, Case, graph_of, random_inputs, random_params, stored

pytestmark = pytest.mark.cuda

GOLDEN = Path(__file__).parent.parent / "golden" / "networks"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
PARAMS = {"unet": {"size": 204}}  # as in tests/networks
SIZES = {"lapsrn_x4": {"luma": (1, 20, 24)}}
WITHIN = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 1e-2}  # of the largest value

TEXT = """netdsl 1
net small {
  input image 3x20x23
  conv 16 3x3 pad=1 | batchnorm | relu | maxpool 2x2
  residual { conv 16 3x3 pad=1 | batchnorm | relu | conv 16 3x3 pad=1 | batchnorm }
  relu
  branches concat { conv 5 1x1 | tanh
    depthwise 3x3 pad=1 }
  flatten | dense 40 | relu | dense 10 | softmax
}
"""


def check_golden(name: str, precision: str) -> None:
    graph = netdsl.build(name, params=PARAMS.get(name), input_shapes=SIZES.get(name))
    weights = {tensor: golden_tensor(tensor, shape) for tensor, shape in graph.tensors.items()}
    net = netdsl.compile(graph, weights=weights, device="cuda", precision=precision)
    for _ in range(2):  # recorded, then from the graph
        out = net(golden_input(FACTS[name]["input"]))
        found = list(out.values()) if isinstance(out, dict) else [out]
        for y, expected in zip(found, np.load(GOLDEN / f"{name}.npz").values(), strict=True):
            assert y.shape == expected.shape and y.dtype == np.float32
            assert np.abs(y - expected).max() <= WITHIN[precision] * np.abs(expected).max()


@pytest.mark.parametrize("name", FACTS)
def test_every_network(name: str) -> None:
    check_golden(name, "float32")


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["lenet5", "resnet18", "mobilenet_v2", "squeezenet1_1", "dcgan_generator"])
def test_precisions_of_tensor_cores(name: str, precision: str) -> None:
    check_golden(name, precision)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operators(case: Case, batch: int) -> None:
    rng = np.random.default_rng(0)
    graph = graph_of(case.op, case.types)
    weights = stored(random_params(case.op, case.types, rng))
    inputs = random_inputs(case.op, case.types, batch, rng)
    with np.errstate(invalid="ignore", divide="ignore"):
        (expected,) = reference.run(graph, weights, inputs)
    scale = max(1.0, float(np.nanmax(np.abs(expected[np.isfinite(expected)]), initial=0.0)))
    program = cuda.lower(graph, weights)
    for _ in range(3):
        (found,) = program(inputs)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=8e-6 * scale)


@pytest.fixture(scope="module")
def small() -> Any:
    net = netdsl.compile(TEXT, "random", device="cuda", seed=1)
    x = np.random.default_rng(0).standard_normal((5, 3, 20, 23)).astype(np.float32)
    graph = build(TEXT)
    return net, x, reference.run(graph, random_weights(graph, 1), [x])[0]


def test_the_same_call_gives_the_same_bits(small: Any) -> None:
    net, x, expected = small
    first = net(x)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert all(np.array_equal(net(x), first) for _ in range(5))


def test_launches_are_recorded_as_a_graph(small: Any) -> None:
    net, x, _ = small
    for _ in range(2):
        net(x)
    assert all(workspace.is_recorded for workspace in net._program._idle(len(x))[1])


def test_eight_callers_at_once(small: Any) -> None:
    net, x, _ = small
    other = netdsl.compile(TEXT, "random", device="cuda", seed=2)
    expected = {(m, k): m(x[k:]) for m in (net, other) for k in range(5)}

    def call(i: int) -> bool:
        model, k = (net, other)[i % 2], i % 5
        return all(np.array_equal(model(x[k:]), expected[model, k]) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(16)))


def test_an_array_on_the_gpu_stays_there(small: Any) -> None:
    net, x, expected = small
    given = net(x)
    y = net(_on_gpu(x))
    assert hasattr(y, "__cuda_array_interface__") and y.shape == expected.shape
    assert np.array_equal(y.numpy(), given) and np.array_equal(np.asarray(y), given)
    assert net(_on_gpu(x[:0])).shape == (0, 10)


def test_results_go_on_into_another_network(small: Any) -> None:
    net, x, _ = small
    head = netdsl.compile("netdsl 1\nnet head {\n input x 10\n dense 3\n}\n", "random", device="cuda")
    assert np.array_equal(head(net(_on_gpu(x))).numpy(), head(net(x)))


def _on_gpu(x: np.ndarray) -> Any:
    from netdsl.backends.cuda import device
    from netdsl.backends.cuda.tensors import DeviceTensor

    return DeviceTensor(device.runtime().upload(x), x.shape)


def test_torch_tensors_cross_without_a_copy(small: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    net, x, _ = small
    given = net(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # what is still being made on a stream is waited for
        made = torch.from_numpy(x).cuda(non_blocking=True) * 2 / 2
        y = net(made)
    assert np.array_equal(torch.from_dlpack(y).cpu().numpy(), given)
    back = torch.from_dlpack(y)
    assert back.data_ptr() == y.__cuda_array_interface__["data"][0]
    with pytest.raises(InputError, match="contiguous float32"):
        net(made.double())
    with pytest.raises(InputError, match="contiguous float32"):
        net(torch.from_numpy(x.transpose(0, 1, 3, 2).copy()).cuda().transpose(2, 3))


def test_every_step_is_timed(small: Any) -> None:
    net, x, _ = small
    found = net.profile(x, rounds=2)
    assert found.macs == len(x) * net.graph.macs and found.roof.card in net.device_name
    assert all(step.seconds > 0 for step in found) and found.seconds > 0
    assert sum(step.share for step in found) == pytest.approx(1)


def test_auto_takes_the_gpu_and_says_which() -> None:
    net = netdsl.compile(TEXT, "random")
    assert net.device == "cuda" and "compute capability" in net.device_name
