"""The same figures through the command line, as a user would ask for them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netdsl.cli import app
from netdsl.graph.library import folder

SHARED = os.environ.get("NETDSL_SHARED")
ASSETS = Path(SHARED or ".") / "assets"
needs_shared = pytest.mark.skipif(
    not SHARED, reason="NETDSL_SHARED does not name the folder with trained weights and data"
)
PHOTO = folder() / "samples" / "photo.jpg"


def netdsl(capsys, *arguments):
    """Run a command that must succeed; what it printed."""
    capsys.readouterr()
    assert app.run([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


@needs_shared
@pytest.mark.parametrize(
    ("name", "weights", "data", "top1", "top5"),
    [
        ("lenet5_mnist", "lenet5_mnist.pth", "t10k-images-idx3-ubyte.gz", 0.9907, None),
        ("resnet20_cifar10", "resnet20-12fca82f.th", "samples", 1.0, None),
        ("squeezenet1_1_caffe", "squeezenet1_1.safetensors", "samples", 0.70, 1.00),
        ("kws_dscnn", "kws_dscnn.safetensors", "test.npz", 0.913, None),
    ],
)
def test_eval(capsys, name, weights, data, top1, top5):
    at = ASSETS / name
    told = json.loads(netdsl(capsys, "eval", name, "--data", at / data, "--weights", at / weights, "--json"))
    assert told["top1"] == pytest.approx(top1, abs=1e-4)
    assert top5 is None or told["top5"] == top5


@needs_shared
def test_run_enlarges_a_picture(capsys, tmp_path):
    at = ASSETS / "lapsrn_x4"
    data = np.load(at / "set5_x4.npz")
    np.save(tmp_path / "low.npy", data["butterfly_low"][None])
    arguments = ["--input", tmp_path / "low.npy", "--output", tmp_path / "high.npz", "--weights"]
    netdsl(capsys, "run", "lapsrn_x4", *arguments, at / "lapsrn_x4.safetensors")
    found = np.load(tmp_path / "high.npz")["x4"].squeeze()
    difference = (np.clip(found * 255, 0, 255) - data["butterfly_high"])[4:-4, 4:-4]
    assert 10 * np.log10(255**2 / np.mean(difference**2)) == pytest.approx(27.536, abs=1e-3)


@pytest.mark.parametrize("name", ["identity", "box_blur", "gaussian", "sharpen", "sobel", "laplacian", "emboss"])
def test_a_filter_takes_an_image_and_writes_an_image(capsys, tmp_path, name):
    netdsl(capsys, "run", f"filters/{name}", "--input", PHOTO, "--output", tmp_path / "out.png")
    before, after = Image.open(PHOTO), Image.open(tmp_path / "out.png")
    assert (after.size, after.mode) == (before.size, "RGB")
    same = np.array_equal(np.asarray(before), np.asarray(after))
    assert same == (name == "identity")


def test_the_shipped_network_reads_the_shipped_digit(capsys):
    told = netdsl(capsys, "run", "lenet5")
    assert "5" in told and "digit.png" in told
