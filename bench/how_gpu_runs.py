"""The GPU half of what docs/how-it-runs.md shows: the same convolution lowered for CUDA. `how_it_runs.py` prints it.

What NVIDIA's tools make of a kernel needs them installed, and no GPU.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import metadata, util
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np

import cubin
from netdsl.backends.cuda import jit
from netdsl.backends.cuda.planner import WeightBank
from netdsl.backends.cuda.program import Plan, make_plan
from netdsl.backends.cuda.steps import Step
from netdsl.backends.cuda.tiles import Target
from netdsl.backends.cuda.views import Address, Arena, Counters, Data
from netdsl.compiler import stop_after
from records import Record

CAPABILITY = (9, 0)
PRECISIONS = ("float32", "tf32", "float16")
SHOWN = 24  # chosen: lines of PTX
COUNTED = ("FFMA", "HMMA", "LDS", "LDGSTS", "STG")  # instructions in the table


class Lacking(Exception):
    """The tools that a part needs are not here; says which."""


class Unpacked(WeightBank):
    """Weights that are never computed: the plan does not depend on them."""

    def pack(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Data:
        return Data(np.zeros(1, np.float32))


@cache
def planned(network: str, precision: str) -> Plan:
    """The plan of a network that ships, for one image."""
    return make_plan(stop_after("rewrite", network), Unpacked({}), 1, precision, Target(CAPABILITY))


def step_of(network: str, layer: str, precision: str) -> Step:
    """The launch that a layer became."""
    return next(step for step in planned(network, precision).steps if step.node == layer)


def plan(network: str, layer: str) -> str:
    """The step: kernel, launch and arguments."""
    step, steps = step_of(network, layer, "float32"), planned(network, "float32").steps
    number = next(i for i, other in enumerate(steps) if other is step) + 1
    rows = [
        f"kernel = {step.kernel.name}", f"constants = {step.kernel.constants}",
        f"launch {number} of {len(steps)}", f"grid = {step.geometry.grid}", f"block = {step.geometry.block}",
        *(f"{name:<14}{_argument(value)}" for name, value in step.arguments.items() if name in step.kernel.parameters),
    ]  # fmt: skip
    return "\n".join(rows)


def _argument(value: Any) -> str:
    if isinstance(value, Address):
        return f"float {value.view.start + value.offset} of buffer {value.view.buffer}"
    named = {Arena: "the arena", Data: "constant values", Counters: "zeros, left zero"}
    return named.get(type(value), str(value))


def kernel() -> str:
    """The loop over slices, and what multiplies one, as they stand in their files."""
    return _between("gemm", "while count > 0:", "count = int32(count - 1)") + "\n\n\n" + _between(
        "gemm_fma", "def multiply(", "sums[i * columns + j] +="
    )  # fmt: skip


def _between(module: str, first: str, last: str) -> str:
    """The lines of a kernel's module from one to another (the module is not imported: that takes a compiler)."""
    spec = util.find_spec(f"netdsl.backends.cuda.kernels.{module}")
    assert spec is not None and spec.origin is not None
    lines = Path(spec.origin).read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if first in line)
    end = next(i for i, line in enumerate(lines) if last in line)
    return dedent("\n".join(lines[start : end + 1])).replace("  # type: ignore[no-untyped-def]", "")


def compiled_by() -> str:
    """What the code below depends on: the kind of GPU and the compilers."""
    _need_tools()
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
    )
    return f"compiled for sm_{CAPABILITY[0]}{CAPABILITY[1]} by {versions}"


def _need_tools() -> None:
    if (reason := cubin.missing()) is not None:
        raise Lacking(reason)


@cache
def _made(network: str, layer: str, precision: str) -> tuple[str, bytes]:
    """A layer's kernel as PTX and as machine code."""
    kernel = step_of(network, layer, precision).kernel
    ptx, _ = jit.to_ptx(kernel, cubin.kinds_of(kernel), CAPABILITY)
    return ptx, jit.linked(ptx, CAPABILITY)


def ptx(network: str, layer: str) -> str:
    """Of the PTX: waiting for a slice, a copy to come, and the beginning of the innermost loop."""
    _need_tools()
    text, _ = _made(network, layer, "float32")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("//")]
    blocks = _blocks(lines)
    waits = next(b for b in blocks if any("cp.async.wait_group" in line for line in b))
    copies = next(line for line in lines[lines.index(waits[0]) :] if line.startswith("cp.async.cg"))
    inner = max(blocks, key=lambda b: sum(line.startswith("fma.rn.f32") for line in b))
    head = [*waits[: waits.index("bar.sync \t0;") + 1], "…", copies, "…", "cp.async.commit_group;", "…"]
    rest = Counter(line.split()[0] for line in inner[SHOWN:-1])
    tail = [f"… {sum(rest.values())} more, {rest['fma.rn.f32']} of them fma.rn.f32", inner[-1]]
    return "\n".join(["// " + compiled_by(), *map(_tidy, [*head, *inner[:SHOWN], *tail])])


def _blocks(lines: list[str]) -> list[list[str]]:
    """Lines from label to label or branch."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.endswith(":"):
            blocks.append([])
        blocks[-1].append(line)
        if " bra" in line:
            blocks.append([])
    return blocks


def _tidy(line: str) -> str:
    word, _, rest = line.partition("\t")
    indent = "" if line.endswith(":") else "    "
    return f"{indent}{word.strip():<20}{rest.strip()}".rstrip() if rest else indent + line


def loop(network: str, layer: str) -> str:
    """The innermost loop as the GPU executes it."""
    _need_tools()
    _, code = _made(network, layer, "float32")
    rows = []
    for address, text in cubin.loop_of(cubin.disassembled(code), "FFMA"):
        predicate, instruction = re.match(r"(@!?\w+ )?(.*)", text).groups()  # type: ignore[union-attr]
        word, _, rest = instruction.partition(" ")
        rows.append(f"{address:04x}  {predicate or '':<5}{word:<18}{rest}".rstrip())
    return "\n".join(["// " + compiled_by(), *rows])


def code(network: str, layer: str) -> str:
    """What the layer's kernel takes in each precision: a table."""
    _need_tools()
    names = ("precision", "kernel", "blocks", "threads", "registers", "shared bytes", "spilled", "resident", *COUNTED)
    rows = ["| " + " | ".join(names) + " |", "| --- | --- |" + " ---: |" * (len(names) - 2)]
    for precision in PRECISIONS:
        step = step_of(network, layer, precision)
        found, threads = cubin.examined(_made(network, layer, precision)[1], CAPABILITY), step.geometry.threads
        grid = step.geometry.grid
        cells = (
            grid[0] * grid[1] * grid[2], threads, found.registers, found.shared_bytes, found.spills,
            found.resident_blocks(threads), *(_count(found, name) for name in COUNTED),
        )  # fmt: skip
        rows.append(f"| {precision} | `{step.kernel.name}` | " + " | ".join(map(str, cells)) + " |")
    return f"{compiled_by().capitalize()}; instructions as they stand in the code:\n\n" + "\n".join(rows)


def _count(found: cubin.Cubin, name: str) -> int:
    return sum(n for word, n in found.instructions.items() if word.split(".")[0] == name)


def ladder(record: Record) -> str:
    """The rungs of `cuda_ladder.py` from its results: what the compiler made of each, and once run, its speed."""
    channels, side = record["convolution"].split("x")
    compilers = ", ".join(f"{name} {record['compilers'][name]}" for name in ("numba-cuda", "nvidia-nvvm"))
    what = f"A 3x3 convolution of {channels} channels on {side}x{side} maps, batch {record['batch']}"
    card = record["gpu"]
    how = f"measured on {card['card']}, driver {card['driver']}" if card else "never run"
    names = ("rung", "registers", "shared bytes", "spilled", "occupancy", "TFLOP/s", "of cuDNN")
    rows = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    for r in record["results"]:
        speed = f"{r['flops'] / 1e12:.1f}" if "flops" in r else "-"
        part = f"{r['part_of_peer']:.2f}" if r.get("part_of_peer") else "-"
        cells = (r["rung"], r["registers"], r["shared_bytes"], r["spills"], f"{r['occupancy']:.0%}", speed, part)
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    head = f"{what}; compiled for capability {record['capability']} by {compilers}, {record['machine']['date']}; {how}:"
    return f"{head}\n\n" + "\n".join(rows)
