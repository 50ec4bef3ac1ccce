"""Every shipped network's answer against an independent float64 engine, within 1e-4 of the largest value."""

import json
from pathlib import Path

import numpy as np
import pytest

import netdsl
from golden_tensors import golden_input, golden_tensor
from netdsl.backends.cpu.target import host

GOLDEN = Path(__file__).parent.parent / "golden" / "networks"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
TOLERANCE = 1e-4  # of the largest value; float32 with Winograd stays below
ROUNDED_TOLERANCE = 1e-2
PARAMS = {"unet": {"size": 204}}  # the goldens of the two largest inputs are made for smaller ones
SIZES = {"lapsrn_x4": {"luma": (1, 20, 24)}}
REFERENCE_MACS = 2e9  # chosen: more would take the reference interpreter more than a few seconds


def check(name, device, precision="float32"):
    """Run a network on its golden weights and input, and compare every output; in less than float32, also its class."""
    graph = netdsl.build(name, params=PARAMS.get(name), input_shapes=SIZES.get(name))
    weights = {tensor: golden_tensor(tensor, shape) for tensor, shape in graph.tensors.items()}
    net = netdsl.compile(graph, weights=weights, device=device, precision=precision)
    out = net(golden_input(FACTS[name]["input"]))
    found = list(out.values()) if isinstance(out, dict) else [out]
    wanted = list(np.load(GOLDEN / f"{name}.npz").values())
    assert len(found) == len(wanted)
    for y, expected in zip(found, wanted, strict=True):
        assert y.shape == expected.shape and y.dtype == np.float32
        tolerance = TOLERANCE if precision == "float32" else ROUNDED_TOLERANCE
        assert np.abs(y - expected).max() <= tolerance * np.abs(expected).max()
        assert precision == "float32" or np.array_equal(y.argmax(1), expected.argmax(1))
    return net


@pytest.mark.parametrize("name", [n for n in FACTS if FACTS[n]["macs"] < REFERENCE_MACS])
def test_reference(name):
    check(name, "reference")


@pytest.mark.parametrize("name", FACTS)
def test_cpu(name):
    check(name, "cpu")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("name", "layers"), [("lenet5", 0), ("alexnet", 3), ("resnet18", 1)])
def test_weights_in_16_bits(name, layers, precision):
    if precision == "float16" and not host().widens_float16:
        pytest.skip("this processor does not convert float16")
    assert check(name, "cpu", precision).storage.layers == layers
