"""`netdsl eval`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import netdsl as package
from cli.conftest import TINY, Netdsl


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Thirty inputs labelled with what the network of `tiny` says of them, six labels then made wrong."""
    with pytest.warns(package.NetWarning):
        net = package.compile(TINY, device="reference")
    x = np.random.default_rng(0).standard_normal((30, 1, 8, 8)).astype(np.float32)
    labels = net(x).argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 3
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    return tmp_path / "data.npz"


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_accuracy(netdsl: Netdsl, tiny: Path, data: Path, batch: int) -> None:
    record = netdsl("eval", tiny, "--data", data, "--json", "--batch", batch).json
    assert (record["images"], record["top1"], record["top5"]) == (30, pytest.approx(0.8), 1.0)
    assert record["random_weights"] and record["device"] == "cpu"


def test_limit_takes_the_first_images(netdsl: Netdsl, tiny: Path, data: Path) -> None:
    record = netdsl("eval", tiny, "--data", data, "--json", "--limit", 8, "--device", "reference").json
    assert (record["images"], record["top1"]) == (8, pytest.approx(0.25))


def test_what_is_printed(netdsl: Netdsl, tiny: Path, data: Path) -> None:
    done = netdsl("eval", tiny, "--data", data)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("network  tiny, with random weights (seed 0): the answer means nothing")
    assert lines[1].startswith("data     arrays, 30 images in ")
    assert lines[2:] == ["top-1    80.00%"]  # of three classes, the first five say nothing


def test_a_network_that_is_no_classifier(netdsl: Netdsl, data: Path) -> None:
    done = netdsl("eval", "filters/sobel", "--data", data)
    assert done.status == 1
    assert "no classifier" in done.err


def test_data_that_is_not_there(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path / "none", tiny):
        done = netdsl("eval", tiny, "--data", wrong)
        assert (done.status, done.out) == (1, "")
        assert str(wrong) in done.err
