"""The comparison with PyTorch on a GPU: all of it that needs none."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest

import cuda_peers
import netdsl
from netdsl.backends import reference
from netdsl.backends.cuda import device
from netdsl.compiler import compile
from netdsl.errors import DeviceError
from netdsl.weights import random_weights

TIMES = {"netdsl": [2e-3, 1e-3, 3e-3], "torch graph": [3e-3, 3e-3, 3e-3], "torch eager": [8e-3, 8e-3, 8e-3]}
PROFILE = {"machine": {"flops": 1e12}, "steps": [{"macs": 10**8, "seconds": 1e-3}, {"macs": 0, "seconds": 1e-3}]}


def no_gpu() -> None:
    raise DeviceError("the NVIDIA driver shows no GPU", code="cuda-no-device", hint="see what nvidia-smi says")


def test_without_a_gpu_it_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find", no_gpu)
    with pytest.raises(SystemExit) as ended:
        cuda_peers.main([])
    assert ended.value.code == "Nothing was run: the NVIDIA driver shows no GPU; see what nvidia-smi says."


def test_without_pytorch_it_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="PyTorch is not installed; pip install torch"):
        cuda_peers.main([])


def test_a_pytorch_without_cuda_is_told_from_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(device, "find", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"PyTorch .* has no CUDA"):
        cuda_peers.main([])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda_peers.lacking() is None


def test_an_unknown_precision_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cuda_peers.main(["--precision", "float32,int8"])
    assert "there is no precision int8" in capsys.readouterr().err


def test_targets() -> None:
    assert cuda_peers.target(1, "float32") == cuda_peers.target(1, "bfloat16") == 1.0
    assert (cuda_peers.target(64, "float32"), cuda_peers.target(64, "tf32"), cuda_peers.target(64, "float16")) == (
        1,
        0.8,
        0.8,
    )
    assert cuda_peers.target(8, "float32") is cuda_peers.target(64, "bfloat16") is None


def test_a_record_and_its_row() -> None:
    record = json.loads(json.dumps(cuda_peers.result("net", 64, "tf32", 1e-3, TIMES, PROFILE)))
    assert record["ratio"] == 1.5 and record["target"] == 0.8 and record["difference"] == 1e-3
    assert record["seconds"]["netdsl"]["median"] == 2e-3 and record["images_per_second"]["netdsl"] == 32000
    assert cuda_peers.cells(record) == ("net", "64", "tf32", "2", "3", "8", "3.2e+04", "1.50", "0.8", "10%")
    assert cuda_peers.remarks([record]) == []


def test_answers_that_differ_have_no_times() -> None:
    record = cuda_peers.result("net", 1, "float32", 0.5)
    row = cuda_peers.cells(record)
    assert len(row) == len(cuda_peers.COLUMNS) and row[3:8] == ("-",) * 5 and record["ratio"] is None
    assert cuda_peers.remarks([record]) == [
        "net, batch 1, float32: the answers differ by 5.0e-01 of the largest value: not timed"
    ]


def test_a_target_that_is_missed_is_said() -> None:
    slow = cuda_peers.result("net", 1, "float32", 0.0, TIMES | {"netdsl": [6e-3]}, PROFILE)
    assert cuda_peers.remarks([slow]) == ["net, batch 1, float32: 0.50 of PyTorch with CUDA graphs, aimed at 1"]


def measured(monkeypatch: pytest.MonkeyPatch, answer: float) -> dict[str, Any]:
    """`measured` on lenet5 with PyTorch answering so much more than netdsl's CPU lowering."""
    monkeypatch.setattr(
        netdsl, "compile", lambda graph, weights, device, precision: compile(graph, weights, "reference")
    )
    monkeypatch.setattr(cuda_peers, "own_call", lambda model, inputs: lambda: None)

    def calls(graph: Any, weights: Any, inputs: Any, precision: str) -> Any:
        return {"torch graph": lambda: None, "torch eager": lambda: None}, [
            reference.run(graph, weights, inputs)[0] + answer
        ]

    class Profiled:
        def as_dict(self) -> dict[str, Any]:
            return PROFILE

    monkeypatch.setattr(cuda_peers, "torch_calls", calls)
    monkeypatch.setattr(netdsl.Model, "profile", lambda self, *inputs, rounds: Profiled())
    return cuda_peers.measured("lenet5", 2, "float32", 1, 0.0)


def test_answers_come_before_times(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(measured(monkeypatch, 0.0)["seconds"]) == set(cuda_peers.ENGINES)
    assert measured(monkeypatch, 1.0)["seconds"] == {}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pytorch_gets_the_same_network_with_folded_norms(precision: str) -> None:
    torch = pytest.importorskip("torch")
    text = """netdsl 1
    net small {
      input image 3x9x8
      conv 8 3x3 pad=1 bias=no | batchnorm | relu
      conv 4 1x1 | batchnorm | flatten | dense 5
    }
    """
    graph = netdsl.build(text)
    weights = random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 8)).astype(np.float32)
    module = cuda_peers.torch_module(graph, weights, lambda t: cuda_peers.placed(t, "cpu", precision))
    assert len([step for step in module.steps if step]) == 5  # no step is a norm
    given = cuda_peers.placed(torch.from_numpy(x), "cpu", precision)
    assert given.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        (found,) = module(given)
    (expected,) = reference.run(graph, weights, [x])
    assert found.dtype == (torch.float32 if precision == "float32" else torch.bfloat16)
    assert np.abs(found.float().numpy() - expected).max() <= cuda_peers.TOLERANCE[precision] * np.abs(expected).max()
