"""Kernels compiled to machine code without a GPU, and kept: every plain kernel, and the cache's behaviour.

The tiled kernels, whose registers and instructions are held to limits, have their own tests.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from test_cuda_operators import followed
from test_cuda_plan import Unpacked

import cubin
from netdsl import kept
from netdsl.backends.cuda import jit, warm
from netdsl.backends.cuda.program import make_plan
from netdsl.backends.cuda.steps import Kernel, Step
from netdsl.errors import DeviceError, NetWarning
from netdsl.graph.ir import Graph
from netdsl.passes import rewrite
from shapes import CASES, graph_of

missing = [name for name in ("numba_cuda", "cuda") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (pip install '.[cuda13]')")

PLAIN_REGISTERS = 80  # the hungriest takes 66 on sm_90: three blocks of 256 threads fit a multiprocessor
PLAIN = ("conv", "elementwise", "move", "norm", "pool")  # modules whose kernels are compiled here


def plain_steps(graphs: Iterable[Graph], precision: str = "float32") -> dict[Kernel, Step]:
    """A step for each plain kernel that any of these graphs needs."""
    bank = Unpacked({})
    steps = [s for graph in graphs for s in make_plan(rewrite(graph), bank, 1, precision).steps]
    return {s.kernel: s for s in steps if s.kernel.module in PLAIN}


ALONE = [] if missing else [graph_of(case.op, case.types) for case in CASES]
FOLLOWED = [] if missing else [followed(case) for case in CASES]  # results are maps of the precision's type
STEPS = plain_steps(ALONE)
HALVES = plain_steps(FOLLOWED, "float16")
OTHERS = {**plain_steps(ALONE, "float16"), **plain_steps([*ALONE, *FOLLOWED], "bfloat16")}
MEASURES = {
    Kernel("measure", "multiply_adds"): {"out": "float32[]", "steps": "int64"},
    Kernel("measure", "copy"): {"source": "float32[]", "to": "float32[]", "count": "int64"},
    Kernel("measure", "tensor_products", ("tf32",)): {"out": "float32[]", "steps": "int64"},
    Kernel("measure", "tensor_products", ("bfloat16",)): {"out": "float32[]", "steps": "int64"},
}


def check(kernel: Kernel, kinds: Mapping[str, str], capability: tuple[int, int]) -> None:
    made = jit.compile_kernel(kernel, kinds, capability)
    assert made.code.startswith(b"\x7fELF") and made.symbol.encode() in made.code
    assert made.parameters == kernel.parameters
    assert made.types == tuple(kinds[p] for p in kernel.parameters)
    if cubin.missing() is None and capability in cubin.WARPS:
        code = cubin.examined(made.code, capability)
        assert code.spills == 0 and code.registers <= PLAIN_REGISTERS
        assert code.count("DFMA") == code.count("DADD") == code.count("DMUL") == 0  # nothing slipped into float64


@pytest.mark.parametrize("kernel", [*STEPS, *MEASURES], ids=lambda k: k.name)
def test_every_plain_kernel_compiles(kernel: Kernel) -> None:
    kinds = MEASURES[kernel] if kernel in MEASURES else STEPS[kernel].kinds()
    check(kernel, kinds, (9, 0))


def half_cases() -> Iterator[object]:
    for steps, capability in ((HALVES, (9, 0)), (OTHERS, (8, 0))):
        for kernel in sorted(steps.keys() - STEPS.keys() - (HALVES.keys() if steps is OTHERS else set()), key=repr):
            marks = () if steps is HALVES else pytest.mark.slow
            yield pytest.param(steps[kernel], capability, id=kernel.name, marks=marks)


@pytest.mark.parametrize(("step", "capability"), [*half_cases()])
def test_every_plain_kernel_compiles_for_halves(step: Step, capability: tuple[int, int]) -> None:
    check(step.kernel, step.kinds(), capability)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 6), (8, 9), (10, 0), (12, 0)])
def test_for_other_cards(capability: tuple[int, int]) -> None:
    kernel = next(k for k in STEPS if k.factory == "maxpool")
    check(kernel, STEPS[kernel].kinds(), capability)


def test_a_card_that_the_compilers_do_not_know_is_said() -> None:
    with pytest.raises(DeviceError, match=r"kernel copy cannot be compiled for compute capability 3\.0") as caught:
        jit.compile_kernel(COPY, MEASURES[COPY], (3, 0))
    assert caught.value.code == "cuda-compile" and "netdsl[cuda13]" in str(caught.value.hint)


def test_arrays_are_seven_words_of_a_kernels_parameters() -> None:
    from numba import cuda, types

    kernel = Kernel("measure", "multiply_adds")
    ptx, _ = cuda.compile(kernel.build(), (types.float32[::1], types.int64), device=False, abi="numba", cc=(9, 0))
    (parameters,) = re.findall(r"\.entry\s+\w+\(([^)]*)\)", ptx)
    assert [p.split()[1] for p in parameters.split(",")] == [".u64"] * 8
    assert re.search(r"ld\.param\.u64\s+\S+, \[\w+_param_4\]", ptx)  # the address


def test_the_driver_has_every_function_that_is_called() -> None:
    from cuda.bindings import driver

    for name in ("driver", "device"):
        source = Path(jit.__file__).with_name(f"{name}.py").read_text()
        used = {
            n.attr
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Attribute) and n.attr.startswith(("cu", "CU"))
        }
        assert len(used) > 5
        for word in used:
            homes = (driver, driver.CUresult, driver.CUstream_flags, driver.CUevent_flags, driver.CUstreamCaptureMode,
                     driver.CUfunction_attribute)  # fmt: skip
            assert any(hasattr(home, word) for home in homes), word


COPY, PRODUCTS = Kernel("measure", "copy"), Kernel("measure", "tensor_products", ("tf32",))
LOAD = f"""
    import sys
    from netdsl.backends.cuda import jit
    from netdsl.backends.cuda.steps import Kernel
    made = jit.load(Kernel("measure", "copy"), {MEASURES[COPY]!r}, (9, 0))
    assert made.parameters == ("source", "to", "count") and made.code.startswith(b"\\x7fELF")
    print("compiled" if "numba" in sys.modules else "kept")
"""


def loaded(folder: Path) -> str:
    environment = {**os.environ, "NETDSL_CACHE": str(folder), "NUMBA_ENABLE_CUDASIM": "0"}
    code = "\n".join(line.strip() for line in LOAD.splitlines())
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_kept_kernel_needs_no_numba(tmp_path: Path) -> None:
    assert loaded(tmp_path) == "compiled"
    assert loaded(tmp_path) == "kept"
    (file,) = (tmp_path / "kernels").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert loaded(tmp_path) == "compiled"
    assert file.read_bytes() == whole


def test_a_helper_compiles_what_a_line_says(tmp_path: Path) -> None:
    line = json.dumps(["measure", "tensor_products", ["tf32"], MEASURES[PRODUCTS], [8, 0]])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "netdsl.backends.cuda.warm"], env={**os.environ, "NETDSL_CACHE": str(tmp_path)},
        input=f"{line}\n{line}\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "done\n" * 2, done.stderr
    (file,) = (tmp_path / "kernels").iterdir()
    assert file.name.startswith("tensor_products_tf32-") and "-sm80-" in file.name


def test_several_processes_compile_and_keep_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path))
    monkeypatch.setattr(jit, "_loaded", {})
    here: list[Kernel] = []
    warm.compile_all([*MEASURES.items()], (9, 0), lambda work: here.append(work[0]))
    assert len(here) == len(set(here)) <= len(MEASURES)
    assert all(jit.is_cached(kernel, (9, 0)) for kernel in MEASURES)
    monkeypatch.setattr(jit, "compile_kernel", None)
    for kernel, kinds in MEASURES.items():
        assert jit.load(kernel, kinds, (9, 0)).parameters == kernel.parameters


def test_a_cache_that_cannot_be_written_is_said_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path))
    monkeypatch.setattr(kept, "_warned", False)
    monkeypatch.setattr(jit, "_loaded", {})
    with pytest.warns(NetWarning, match="compiled kernels cannot be kept in"):
        made = jit.load(COPY, MEASURES[COPY], (9, 0))
    assert made.code and jit.is_cached(COPY, (9, 0))


def test_the_key_names_compilers_and_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = jit._environment()
    jit._environment.cache_clear()
    monkeypatch.setattr(jit.metadata, "version", lambda name: "0.0")
    try:
        assert jit._environment() != before
    finally:
        jit._environment.cache_clear()
