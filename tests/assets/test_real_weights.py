"""Weights trained by other people, on real data: the published figures must come out.

The data is not part of this repository; NETDSL_SHARED names the folder that has it (in `assets/`).
"""

import os
from pathlib import Path

import numpy as np
import pytest

import netdsl
from netdsl.answers import Score
from netdsl.datasets import open_dataset

SHARED = os.environ.get("NETDSL_SHARED")
ASSETS = Path(SHARED or ".") / "assets"
pytestmark = pytest.mark.skipif(
    not SHARED, reason="NETDSL_SHARED does not name the folder with trained weights and data"
)


def compiled(name, file, device="cpu", **options):
    return netdsl.compile(name, weights=ASSETS / name / file, device=device, **options)


def score(net, path, batch=64):
    """Top-1 and top-5 on labelled data, and the outputs [N, classes]."""
    found, outputs = Score(), []
    for x, labels in open_dataset(path, net.graph.inputs[0], net.outputs[0].shape[1]).batches(batch):
        outputs.append(net(x).reshape(len(x), -1))
        found.add(outputs[-1], labels)
    return found, np.concatenate(outputs)


def largest_error(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_lenet5_reads_10_000_digits(device):
    folder = ASSETS / "lenet5_mnist"
    found, outputs = score(compiled("lenet5_mnist", "lenet5_mnist.pth", device), folder, 500)
    assert found.images == 10_000
    assert found.top1 == pytest.approx(0.9907, abs=1e-4)  # one digit more or less is rounding
    wanted = np.load(folder / "golden.npz")["logprob"]
    assert largest_error(outputs[:256], wanted) < 1e-5


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_resnet20_knows_20_of_20(device):
    folder = ASSETS / "resnet20_cifar10"
    net = compiled("resnet20_cifar10", "resnet20-12fca82f.th", device)
    golden = np.load(folder / "golden.npz")
    for source in (folder / "samples", folder / "golden.npz"):
        found, outputs = score(net, source, 20)
        assert (found.images, found.top1) == (20, 1.0)
        assert largest_error(outputs, golden["logits"]) < 1e-4


def test_squeezenet_names_photos():
    folder = ASSETS / "squeezenet1_1_caffe"
    net = compiled("squeezenet1_1_caffe", "squeezenet1_1.safetensors")
    golden = np.load(folder / "golden.npz")
    found, _ = score(net, folder / "samples", 10)
    assert (found.images, found.top1, found.top5) == (20, 0.70, 1.00)
    crops = golden["images_rgb"][..., ::-1].transpose(0, 3, 1, 2) - np.float32([104, 117, 123]).reshape(3, 1, 1)
    assert largest_error(net(crops), golden["scores"]) < 1e-4


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_keywords_are_heard(device):
    path = ASSETS / "kws_dscnn" / "test.npz"
    found, outputs = score(compiled("kws_dscnn", "kws_dscnn.safetensors", device), path, 250)
    assert (found.images, round(found.top1, 4)) == (1000, 0.913)
    assert largest_error(outputs, np.load(path)["logits"]) < 1e-4


def psnr(found, wanted):
    """Peak signal-to-noise ratio in dB of 0..255 pictures, four pixels of border left out."""
    difference = (np.clip(found, 0, 255) - wanted)[4:-4, 4:-4]
    return 10 * np.log10(255**2 / np.mean(np.square(difference, dtype=np.float64)))


def test_lapsrn_enlarges_set5():
    data = np.load(ASSETS / "lapsrn_x4" / "set5_x4.npz")
    names = ("baby", "bird", "butterfly", "head", "woman")
    low = {name: data[f"{name}_low"] for name in names}
    net = compiled("lapsrn_x4", "lapsrn_x4.safetensors", inputs={"luma": (1, *low["baby"].shape)})
    found = []
    for name in names:
        high = data[f"{name}_high"]
        out = net(low[name][None, None])
        assert out["x2"].shape[2:] == (high.shape[0] // 2, high.shape[1] // 2)
        found.append(psnr(out["x4"][0, 0] * np.float32(255), high))
        assert found[-1] == pytest.approx(float(data[f"{name}_psnr"]), abs=1e-3)
    assert np.mean(found) == pytest.approx(31.645, abs=1e-3)
