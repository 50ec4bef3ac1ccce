"""What a machine with a card does, up to NVIDIA's library: its own bindings, compilers and linker, on a driver made of
Python that emulates the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from libcuda import LACKING, NAME, install, shorten
from simulated import Simulator, simulator

import cubin
import cuda_ladder
from netdsl.backends import reference
from netdsl.graph.build import build
from netdsl.weights import random_weights

pytestmark = pytest.mark.skipif(LACKING is not None, reason=LACKING or "")

ROOT = Path(__file__).parents[2]
FIRST, REST = "tests/cuda/test_cuda_first.py", "tests/cuda/test_cuda_gpu.py"
TILES = "32x32-1 or 32x32-float16 or 3-bfloat16 or kernel1"
WHOLE = "not every_network and not precisions and not operators and not torch and not callers"
TEXT = "netdsl 1\nnet one {\n  input image 3x9x8\n  conv 8 3x3 pad=1 | relu\n  flatten | dense 7\n}\n"


def run(*words: str) -> str:
    """What `python -m words…` prints; it is to succeed."""
    folders = [str(ROOT / "tests" / "cuda"), str(ROOT / "bench"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_the_card(path: str, which: str) -> str:
    return run("pytest", "-p", "libcuda", "-p", "no:cacheprovider", "-n0", "-vv", "-m", "cuda", path, "-k", which)


@pytest.mark.parametrize(
    ("path", "which", "least"),
    [
        pytest.param(FIRST, "found or page_locked or launched or call", 9, id="first"),
        pytest.param(FIRST, TILES, 4, id="tiles"),
        pytest.param(REST, WHOLE, 6, id="whole calls"),
        pytest.param(FIRST, "not peak", 50, id="all of the first", marks=pytest.mark.slow),
        pytest.param(REST, "callers", 1, id="callers", marks=pytest.mark.slow),
        pytest.param(REST, "operators or precisions", 800, id="operators", marks=pytest.mark.slow),
    ],
)
def test_what_waits_for_a_card_passes(path: str, which: str, least: int) -> None:
    found = on_the_card(path, which)
    assert found.count("PASSED") >= least and "SKIPPED" not in found


def test_a_network_is_run_from_the_command_line() -> None:
    found = run("libcuda", "run", "lenet5")  # `auto` takes the card, and says so
    assert NAME.decode() in found and "\n5 " in found  # the digit of the sample


def test_a_profile_has_the_cards_name() -> None:
    found = run("libcuda", "profile", "lenet5", "--device", "cuda")
    assert "maxpool_tanh" in found and NAME.decode() in found


@pytest.fixture(scope="module")
def card() -> Iterator[Simulator]:
    with simulator(_enter) as running:
        yield running


driver: Any = None  # in the process that has the card


def _enter() -> None:
    global driver
    driver = install()
    shorten()


def _refused(name: str, status: int, version: int) -> tuple[str, str, str]:
    """The error where a function of the driver gives a status, and then no more: the card is used as before."""
    import netdsl
    from netdsl.backends.cuda import device
    from netdsl.errors import DeviceError

    x = np.ones((2, 3, 9, 8), np.float32)
    device._opened, driver.version = None, version
    try:
        driver.failing = {name: status} if name in ("cuInit", "cuMemAlloc") else {}
        net = netdsl.compile(TEXT, "random", device="cuda", seed=1)
        driver.failing = {name: status}
        net(x)
    except DeviceError as error:
        found = error.code, error.message, error.hint or ""
    else:
        found = "", "", ""
    finally:
        device._opened, driver.failing, driver.version = None, {}, 13000
    y = netdsl.compile(TEXT, "random", device="cuda", seed=1)(x)
    graph = build(TEXT)
    np.testing.assert_allclose(y, reference.run(graph, random_weights(graph, 1), [x])[0], atol=1e-5)
    return found


@pytest.mark.parametrize(
    ("name", "status", "version", "code", "words"),
    [
        ("cuInit", 100, 13000, "cuda-no-device", "nvidia-smi"),
        ("cuInit", 803, 13000, "cuda-old-driver", "update the driver"),
        ("cuInit", 999, 13000, "cuda-driver", "CUDA_ERROR_UNKNOWN"),
        ("", 0, 11080, "cuda-old-driver", "update the driver"),
        ("cuMemAlloc", 2, 13000, "cuda-memory", "smaller batches"),
        ("cuEventSynchronize", 700, 13000, "cuda-failed", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuGraphInstantiateWithFlags", 2, 13000, "cuda-memory", "recording"),
    ],
)
def test_an_error_of_the_driver_is_told(
    card: Simulator, name: str, status: int, version: int, code: str, words: str
) -> None:
    found, *told = card.apply(_refused, name, status, version)
    assert found == code and words in " ".join(told)


def _ladder() -> Any:
    import cuda_ladder

    cuda_ladder.peer_seconds = lambda *_: None  # cuDNN has no card
    return cuda_ladder.main(["--convolution", "8x5", "--batch", "1", "--rounds", "1"])


@pytest.mark.skipif(cubin.missing() is not None, reason=cubin.missing() or "")
def test_the_ladder_is_checked_and_timed(card: Simulator) -> None:
    record = card.apply(_ladder)
    assert record["gpu"]["card"] == NAME.decode()
    for row in record["results"]:
        assert row["seconds"] == pytest.approx(0.5e-3) and row["error"] <= cuda_ladder.TOLERANCE[row["precision"]]
