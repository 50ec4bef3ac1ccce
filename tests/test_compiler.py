"""The spine: what stands after each stage, and the arguments of `compile`."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl import compiler
from netdsl.backends import reference
from netdsl.backends.cuda import device as gpu
from netdsl.errors import DeviceError, InputError, NetWarning, SourceError, WeightsError
from netdsl.graph.ir import Graph
from netdsl.model import choose_device
from netdsl.ops.norm import BatchNorm
from netdsl.text.tree import File

TEXT = """\
netdsl 1
net small(wide=4, kind=relu) {
  input image 2x6x6
  conv: conv wide 3x3 pad=1 bias=no | norm: batchnorm | relu
  avgpool global | flatten
  dense 3
}
"""


def test_each_stage_makes_what_the_next_one_takes() -> None:
    tree = compiler.stop_after("parse", TEXT)
    assert isinstance(tree, File) and tree.nets[0].name == "small"
    graph = compiler.stop_after("build", TEXT, params={"wide": 8})
    assert isinstance(graph, Graph) and graph.nodes[1].type.shape == (8, 6, 6)
    rewritten = compiler.stop_after("rewrite", TEXT)
    assert not any(isinstance(node.op, BatchNorm) for node in rewritten)
    plan = compiler.stop_after("plan", TEXT, images=2)
    assert plan.images == 2 and plan.steps


def test_rewriting_keeps_the_function() -> None:
    graph, rewritten = compiler.stop_after("build", TEXT), compiler.stop_after("rewrite", TEXT)
    weights = netdsl.weights.random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 6))
    (wanted,), (found,) = reference.run(graph, weights, [x]), reference.run(rewritten, weights, [x])
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(InputError, match="no stage 'bind'"):
        compiler.stop_after("bind", TEXT)


def test_random_weights_are_said_aloud_once() -> None:
    with pytest.warns(NetWarning, match=r"random weights \(seed 3\)") as caught:
        netdsl.compile(TEXT, device="reference", seed=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        netdsl.compile("lenet5", device="reference")
        netdsl.compile("filters/sobel", device="reference")  # needs none


def test_the_seed_decides_random_weights() -> None:
    x = np.ones((1, 2, 6, 6), np.float32)
    with pytest.warns(NetWarning):
        a, b, c = (netdsl.compile(TEXT, "random", "reference", seed=s)(x) for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_a_graph_compiles_as_its_text_does(tmp_path: Path) -> None:
    weights = netdsl.weights.random_weights(netdsl.build(TEXT), 5)
    x = np.ones((1, 2, 6, 6), np.float32)
    from_text = netdsl.compile(TEXT, weights, "reference")
    from_graph = netdsl.compile(netdsl.build(TEXT), weights, "reference")
    np.testing.assert_array_equal(from_text(x), from_graph(x))
    with pytest.raises(InputError, match="has its params"):
        netdsl.compile(netdsl.build(TEXT), weights, "reference", params={"wide": 2})


def test_devices() -> None:
    assert netdsl.compile("lenet5", device="reference").device == "reference"
    with pytest.raises(DeviceError, match="no device 'gpu'"):
        netdsl.compile("lenet5", device="gpu")


def test_auto_takes_the_gpu_only_when_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    card = gpu.Device("a card", (9, 0), 132, 2**37)
    monkeypatch.setattr(gpu, "usable", lambda: card)
    assert choose_device("auto") == "cuda"
    monkeypatch.setattr(gpu, "usable", lambda: None)
    assert choose_device("auto") == "cpu"
    assert netdsl.compile("lenet5").device_name == "cpu"


def test_cuda_that_cannot_be_used_is_an_error_and_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> gpu.Device:
        raise DeviceError("no card", code="cuda-no-device", hint='use device="cpu"')

    monkeypatch.setattr(gpu, "find", find)
    with pytest.raises(DeviceError, match="no card"):
        netdsl.compile("lenet5", device="cuda")


@pytest.mark.parametrize(
    ("precision", "device", "said"),
    [
        ("tf32", "cpu", "precision tf32 needs the tensor cores of a GPU, and this runs on the cpu device"),
        ("bf16", "reference", "the reference device computes in float64 and rounds nothing to bfloat16"),
        ("fp32", "cpu", "no precision 'fp32'"),
        (None, "cpu", "no precision None"),
        ([], "cpu", r"no precision \[\]"),
    ],
)
def test_a_precision_that_a_device_lacks_is_refused(precision: object, device: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        netdsl.compile("lenet5", device=device, precision=precision)  # type: ignore[arg-type]


def test_precisions_have_short_names() -> None:
    assert netdsl.compile("lenet5", device="cpu", precision="bf16").precision == "bfloat16"
    with pytest.raises(InputError) as caught:
        netdsl.compile("lenet5", precision="b16")
    assert caught.value.hint == 'did you mean "bf16"?'


def test_a_model_says_which_weights_it_keeps_in_16_bits() -> None:
    text = "netdsl 1\nnet wide {\n  input x 512x1x1\n  flatten | dense 512\n}\n"
    weights = {"1.weight": np.linspace(-1, 1, 512 * 512).reshape(512, 512), "1.bias": np.zeros(512)}
    net = netdsl.compile(text, weights, device="cpu", precision="bfloat16")
    said = "weights of 1 layer as bfloat16, 0.524 MB instead of 1.05 MB"
    assert str(net.storage) == said and f"precision: {said}" in str(net.summary())
    again = pickle.loads(pickle.dumps(net))
    x = np.ones((3, 512, 1, 1), np.float32)
    assert again.precision == "bfloat16" and np.array_equal(again(x), net(x))
    plain = netdsl.compile(text, weights, device="cpu")
    assert plain.storage is None and "precision" not in str(plain.summary())
    assert 0 < np.abs(plain(x) - net(x)).max() <= 1e-2 * np.abs(plain(x)).max()


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "two", 10**6])
def test_threads_are_a_sensible_number(threads: object) -> None:
    with pytest.raises(InputError, match="threads must be"):
        netdsl.compile("lenet5", device="reference", threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1.5, "a", None, True])
def test_seeds_are_whole_numbers(seed: object) -> None:
    with pytest.raises(InputError, match="the seed must be"):
        netdsl.compile("lenet5", "random", device="reference", seed=seed)  # type: ignore[arg-type]


def test_errors_come_before_any_work() -> None:
    with pytest.raises(SourceError):
        netdsl.compile("netdsl 1\nnet broken {\n")
    with pytest.raises(WeightsError):
        netdsl.compile("lenet5", weights={"fc.fc1.weight": np.zeros((2, 2))})
    with pytest.raises(InputError):
        netdsl.compile("lenet5", params={"clases": 3})
    with pytest.raises(InputError):
        netdsl.compile("no_such_network")


def test_progress_is_told_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from netdsl.backends import cpu

    told: list[tuple[str, int, int]] = []
    lower = cpu.lower

    def first_time(*args, progress, **kwargs):  # type: ignore[no-untyped-def]
        progress("conv", 0, 2)
        return lower(*args, progress=progress, **kwargs)

    monkeypatch.setattr(cpu, "lower", first_time)
    netdsl.compile("lenet5", progress=lambda *report: told.append(report))
    assert told[0] == ("compiling kernels", 0, 2)
