"""`netdsl warm`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.conftest import Netdsl
from netdsl import helpers, kept
from netdsl.backends.cpu import ahead
from netdsl.graph.build import build
from netdsl.graph.library import names

ENDED = "import sys; from netdsl.cli.app import run; status = run(sys.argv[1:]); sys.stdout.flush(); "
SAID = "print('numba' in sys.modules, file=sys.stderr); sys.exit(status)"


def process(cache: Path, *arguments: object) -> tuple[str, bool]:
    """What a command prints in a process of its own, and whether that process had to compile."""
    command = [sys.executable, "-c", ENDED + SAID, *map(str, arguments)]
    environment = os.environ | {"NETDSL_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.splitlines()[-1] == "True"


def test_what_was_warmed_compiles_no_more(tmp_path: Path, tiny: Path) -> None:
    out, compiled = process(tmp_path, "warm", tiny, "--batch", 3, "--json")
    record = json.loads(out)
    assert record["networks"] == [str(tiny)] and record["compiled"] == record["kernels"] > 3 and compiled
    assert not process(tmp_path, "run", tiny, "--json")[1]
    assert not process(tmp_path, "run", tiny, "--batch", 3, "--json")[1]
    out, compiled = process(tmp_path, "warm", tiny, "--batch", 3)
    assert f"1 network: {record['kernels']} kernels, 0 of them compiled now" in out and not compiled


def test_a_network_that_is_wrong_is_said(netdsl: Netdsl, tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("relu", "rleu"))
    done = netdsl("warm", tiny)
    assert done.status == 1 and "rleu" in done.err


def refused(netdsl: Netdsl, tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `netdsl warm` says where the cache keeps nothing."""
    monkeypatch.setenv("NETDSL_CACHE", str(cache))
    done = netdsl("warm", tiny)
    assert done.status == 1 and not done.out and "error[cannot-write]" in done.err
    assert str(cache / "kernels") in done.err and "NETDSL_CACHE" in done.err and "warning" not in done.err
    return done.err


def test_a_cache_that_cannot_be_written_is_an_error_before_anything_is_compiled(
    netdsl: Netdsl, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    monkeypatch.setattr(ahead.jit, "load_all", lambda kernels, progress: pytest.fail("it compiled"))
    assert "File exists" in refused(netdsl, tiny, tmp_path, monkeypatch)


def test_kernels_that_a_disk_did_not_take_are_an_error(
    netdsl: Netdsl, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "write", full)
    monkeypatch.setattr(kept, "_warned", False)
    monkeypatch.setattr(ahead.jit, "_loaded", {})
    monkeypatch.setattr(helpers, "MANY", 1000)  # no helpers, whose disk is not full
    assert "compiled kernels could not be kept" in refused(netdsl, tiny, tmp_path, monkeypatch)


def test_a_damaged_kernel_is_compiled_again(tmp_path: Path, tiny: Path) -> None:
    process(tmp_path, "warm", tiny)
    damaged = sorted((tmp_path / "kernels").glob("*.o"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert json.loads(process(tmp_path, "warm", tiny, "--json")[0])["compiled"] == 1
    assert not process(tmp_path, "run", tiny, "--json")[1]


def test_without_names_all_networks_that_ship_are_meant(netdsl: Netdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead.jit, "is_kept", lambda kernel: True)
    record = netdsl("warm", "--json").json
    assert record["networks"] == names() and record["kernels"] >= 40


@pytest.mark.parametrize(("first", "second"), [("resnet18", "resnet34"), ("resnet50", "resnet152"), ("vgg16", "vgg19")])
def test_a_network_of_the_same_layers_needs_no_new_kernels(first: str, second: str) -> None:
    assert set(ahead.kernels(build(second))) <= set(ahead.kernels(build(first)))


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v2", "unet", "kws_dscnn"])
@pytest.mark.parametrize("images", [1, 5])
def test_the_kernels_known_ahead_are_those_of_the_bound_program(name: str, images: int) -> None:
    from netdsl.backends import cpu
    from netdsl.weights import random_weights

    graph = build(name)
    bank = cpu.bank.WeightBank(random_weights(graph))
    steps = cpu.program.make_plan(cpu.program.rewrite(graph), bank, images, 2).steps
    known = ahead.plan_ahead(graph, images, 2)
    assert [s.kernel for s in steps] == [s.kernel for s in known.steps]
