"""Weights kept in 16 bits: rounded once, otherwise exact; of which layers; where they are refused."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from test_program import NARROW

from fresh import in_fresh_process
from how_it_runs import innermost
from netdsl.backends import cpu, reference
from netdsl.backends.cpu import target
from netdsl.backends.cpu.ahead import kernels
from netdsl.backends.cpu.jit import Kernel
from netdsl.backends.cpu.precision import LEAST, check_precision, storage
from netdsl.backends.cpu.target import WIDTH, host
from netdsl.errors import DeviceError, WeightsError
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.halves import BITS
from netdsl.passes import rewrite
from netdsl.weights import random_weights
from test_halves import WIDENED

HALVES = ["bfloat16", pytest.param("float16", marks=pytest.mark.skipif(not host().widens_float16, reason="no F16C"))]
BODIES = {
    "of a vector": "input x 1201x1x1\n  flatten | dense 131 | relu",
    "of a map": "input x 19x5x7\n  conv 21 3x3 | relu | flatten | dense 427 | tanh | dense 400 | relu | dense 5",
    "with a residual": "input x 370x1x1\n  flatten\n  residual { dense 370 | relu | dense 370 }\n  relu",
}


def network(body: str) -> Graph:
    return build(f"netdsl 1\nnet sample {{\n  {body}\n}}\n")


def rounded(graph: Graph, weights: dict[str, np.ndarray], precision: str) -> dict[str, np.ndarray]:
    """The weights with those that the CPU keeps in 16 bits rounded."""
    small = {name for name, w in weights.items() if w.ndim != 2 or w.size <= LEAST}
    assert len(small) < len(weights)
    return {n: w if n in small else WIDENED[precision](BITS[precision](w)) for n, w in weights.items()}


def close(body: str, precision: str, images: int, threads: int = 2) -> None:
    """Assert that a network is, within float32's rounding, what its definition makes of the rounded weights."""
    graph = network(body)
    weights = random_weights(graph, 3)
    x = np.random.default_rng(1).standard_normal((images, *graph.inputs[0].type.shape)).astype(np.float32)
    (expected,) = reference.run(graph, rounded(graph, weights, precision), [x])
    program = cpu.lower(graph, weights, threads, precision=precision)
    (found,) = program([x])
    terms = max(w[0].size for w in weights.values())
    assert np.abs(found - expected).max() <= 3e-7 * (4 + math.sqrt(terms)) * max(1.0, np.abs(expected).max())
    kept = [s.kernel.constants[5] for s in program.plan(images).steps if s.kernel.factory == "conv"]
    assert precision in kept


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("images", [1, 2, 7, 16])
def test_only_weights_are_rounded(body: str, precision: str, images: int) -> None:
    close(BODIES[body], precision, images)


@pytest.mark.skipif("x86" not in os.uname().machine, reason="these features are x86's")
@pytest.mark.parametrize("width", NARROW)
def test_narrower_vectors_widen_the_same(width: str) -> None:
    name, features = NARROW[width]
    converts = "+f16c," if width == "8 lanes" else ""
    tests = Path(__file__).parent.parent
    code = f"""
        import sys
        sys.path[:0] = {[str(tests), str(tests / "cpu"), str(tests.parent / "bench")]!r}
        from netdsl.backends.cpu.target import WIDTH, host
        from test_precision import BODIES, close
        assert WIDTH == {width[0]}, WIDTH
        for precision in ("bfloat16", "float16") if host().widens_float16 else ("bfloat16",):
            for images in (1, 6):
                close(BODIES["of a map"], precision, images)
        print(precision)
    """
    done = in_fresh_process(code, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=converts + features)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["float16" if converts else "bfloat16"]


@pytest.mark.skipif(WIDTH != 16, reason="the instructions of AVX-512")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("tile", [(1, 8), (6, 4), (8, 3)])
def test_the_inner_loop_widens_each_vector_once_and_spills_none(precision: str, tile: tuple[int, int]) -> None:
    rows, cols = tile
    loop = innermost(Kernel("conv", "conv", (1, rows, cols, 16, None, precision)))
    widened = sum(bool(re.match(r"vpmovzxwd|vcvtph2ps", line)) for line in loop)
    times = widened // cols  # LLVM may unroll
    assert times >= 1 and widened == times * cols
    assert sum("vfmadd" in line for line in loop) == times * rows * cols
    assert sum(line.startswith("vpslld") for line in loop) == (widened if precision == "bfloat16" else 0)
    assert not any("(%rsp" in line and "zmm" in line for line in loop), loop


def test_dense_layers_whose_weights_come_from_memory_are_rounded() -> None:
    kept = storage(rewrite(build("alexnet")), "bfloat16")
    floats = 9216 * 4096 + 4096 * 4096 + 4096 * 1000
    assert (kept.layers, kept.bytes, kept.float32_bytes) == (3, 2 * floats, 4 * floats)
    assert str(kept) == "weights of 3 layers as bfloat16, 117 MB instead of 234 MB"
    one = storage(rewrite(build("resnet18")), "float16")
    assert str(one) == "weights of 1 layer as float16, 1.02 MB instead of 2.05 MB"


def test_a_network_that_waits_for_no_memory_is_as_it_was() -> None:
    graph = build("lenet5")
    weights = random_weights(graph, 0)
    x = np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)
    program = cpu.lower(graph, weights, precision="bfloat16")
    assert np.array_equal(program([x])[0], cpu.lower(graph, weights)([x])[0])
    assert str(program.storage) == "no layer waits for memory, so no weights are kept as bfloat16"
    assert cpu.lower(graph, weights).storage is None


def test_what_is_warmed_is_what_runs() -> None:
    graph = network(BODIES["of a vector"])
    program = cpu.lower(graph, random_weights(graph, 0), 2, precision="bfloat16")
    needed = {step.kernel for images in (1, 3) for step in program.plan(images).steps}
    assert needed <= set(kernels(graph, 3, 2, "bfloat16"))
    assert not needed <= set(kernels(graph, 3, 2))


def test_what_float16_cannot_hold_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(BODIES["of a vector"])
    weights = random_weights(graph, 0)
    name = next(n for n in weights if n.endswith("weight"))
    weights[name][3, 5] = -70000.0
    path = name.removesuffix(".weight")
    with pytest.raises(WeightsError, match=f"{path} has weights up to 7e\\+04, and float16 ends at 65504") as caught:
        cpu.lower(graph, weights, precision="float16")
    assert caught.value.code == "weights-range" and "bfloat16" in str(caught.value.hint)
    weights[name][3, 5] = np.inf  # as it was given
    x = np.ones((1, 1201, 1, 1), np.float32)
    assert np.isposinf(cpu.lower(graph, weights, precision="float16")([x])[0][0, 3])


def test_a_processor_without_the_instruction_refuses_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    old = target.Target("nehalem", "", 4, 16, False)
    monkeypatch.setattr("netdsl.backends.cpu.precision.host", lambda: old)
    with pytest.raises(DeviceError, match=r"precision float16 needs .* \(F16C\), and this one \(nehalem\)") as caught:
        check_precision("float16")
    assert caught.value.code == "precision-processor" and "bfloat16" in str(caught.value.hint)
    check_precision("bfloat16")
    check_precision("float32")
