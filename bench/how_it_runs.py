"""One convolution of ResNet-18 from its line of text to machine code: what docs/how-it-runs.md shows.

    python bench/how_it_runs.py PART     text, graph, rewrite, plan, kernel, loop or roofline: print one part;
                                         gpu_plan, gpu_kernel, gpu_ptx, gpu_loop, gpu_code or gpu_ladder: for a GPU
    python bench/how_it_runs.py --write  write every part into the document, between its markers
    python bench/how_it_runs.py --measure  profile the network into bench/results/how_it_runs.json, then --write

Times come from results files alone; other parts are made anew each time. gpu_ptx to gpu_code need NVIDIA's compilers
(no GPU); without them --write says so and leaves them as they are.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import how_gpu_runs
from how_gpu_runs import Lacking
from netdsl.backends.cpu import jit
from netdsl.backends.cpu.ahead import plan_ahead
from netdsl.backends.cpu.kernels import conv
from netdsl.backends.cpu.target import WIDTH, host
from netdsl.backends.cpu.views import Address, Data, Step
from netdsl.compiler import stop_after
from netdsl.graph.ir import Derived, Graph, Node, Stored
from records import RESULTS, ROOT, Record, read, write

NETWORK, LAYER, THREADS = "resnet18", "layer2.0.conv1", 2  # a direct convolution: 3x3 of stride 2
DOCUMENT = ROOT / "docs" / "how-it-runs.md"
RESULT, LADDER = RESULTS / "how_it_runs.json", RESULTS / "cuda_ladder.json"
PART = re.compile(r"(<!-- part (\w+) -->\n).*?(<!-- /part -->)", re.S)


def node_of(graph: Graph) -> Node:
    return next(node for node in graph if node.path == LAYER)


@cache
def built() -> Graph:
    graph: Graph = stop_after("build", NETWORK)
    return graph


@cache
def step() -> Step:
    """The plan's step for the layer that is no preparation of its memory."""
    return next(s for s in plan_ahead(built(), 1, THREADS).steps if s.node == LAYER and s.kernel.factory != "halo")


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```\n"


def text() -> str:
    """The line that the layer stands on, and the call that leads there."""
    span = node_of(built()).span
    assert span is not None
    line, column = span.source.position(span.start)
    path = Path(span.source.name).resolve().relative_to(ROOT).as_posix()
    return fenced(f"{path}:{line}:{column}\n{span.source.line(line)}")


def _weight(weight: Any) -> str:
    shape = "x".join(map(str, weight.shape))
    if isinstance(weight, Stored):
        return f"{shape} stored as {weight.name}"
    assert isinstance(weight, Derived)
    return f"{shape} made of {', '.join(sorted(_names(weight)))}"


def _names(weight: Any) -> set[str]:
    if isinstance(weight, Derived):
        return {name for part in weight.parts if part is not None for name in _names(part)}
    return {weight.name.removeprefix("layer2.0.")}


def graph() -> str:
    """The node that the line became."""
    return _described(built())


def rewrite() -> str:
    """The node after all passes."""
    return _described(stop_after("rewrite", NETWORK))


def _described(whole: Graph) -> str:
    node = node_of(whole)
    rows = [
        ("path", node.path),
        ("op", node.op),
        ("inputs", ", ".join(f"{whole.nodes[i].path} {whole.nodes[i].type}" for i in node.inputs)),
        ("type", node.type),
        ("fused", ", ".join(map(str, node.fused)) or "nothing"),
        *((f"weights.{role}", _weight(weight)) for role, weight in node.weights.items()),
    ]
    return fenced("\n".join(f"{name:<16}{value}" for name, value in rows))


def plan() -> str:
    """The step: the kernel's name and constants, and its arguments."""
    found = step()
    rows = [f"kernel = {found.kernel.name}", f"constants = {found.kernel.constants}"]
    rows += [f"{name:<14}{_argument(value)}" for name, value in found.arguments.items()]
    return fenced("\n".join(rows))


def _argument(value: Any) -> str:
    if isinstance(value, Address):
        return f"buffer {value.view.buffer} of the arena, byte {value.view.start + value.offset} of it"
    return "constant values" if isinstance(value, Data) else str(value)


def kernel() -> str:
    """The loops of the kernel, as they stand in its file."""
    lines = inspect.getsource(conv.make_conv).splitlines()
    first = next(i for i, line in enumerate(lines) if "for q in range" in line)
    last = next(i for i, line in enumerate(lines) if "wt += step" in line)
    return fenced(textwrap.dedent("\n".join(lines[first : last + 1])), "python")


def innermost(kernel: jit.Kernel) -> list[str]:
    """The lines of a kernel's loop with the most multiply-adds: its label, then instructions to the jump back."""
    lines = [line.strip() for line in jit.assembly(kernel).splitlines()]
    blocks: list[list[str]] = [[]]
    for line in lines:
        if re.match(r"\.?\w+:", line):
            blocks.append([])
        if line and not line.startswith((".p2align", ".cfi", "#")):
            blocks[-1].append(line)
    block = max(blocks, key=lambda b: sum("vfmadd" in line for line in b))
    end = next(i for i, line in enumerate(block) if line.startswith("j"))
    return block[: end + 1]


def loop() -> str:
    """The innermost loop, as LLVM compiles it here."""
    label, *block = innermost(step().kernel)
    rows = (f"    {line.partition(chr(9))[0]:<16}{line.partition(chr(9))[2]}" for line in block)
    return fenced("\n".join([compiled_by(), label, *rows]), "asm")


def compiled_by() -> str:
    """What the order of instructions depends on: the processor, and the LLVM within llvmlite."""
    return f"# compiled for {host().name} by llvmlite {metadata.version('llvmlite')}"


def roofline() -> str:
    """The layer's time and its place under the roof, from the results file; nothing without one."""
    if not RESULT.exists():
        return "No results file is committed yet: `python bench/how_it_runs.py --measure` writes one.\n"
    record = read(RESULT)
    profile, rows = record["results"], []
    ceiling = profile["machine"]
    for found in profile["steps"]:
        if found["path"] == LAYER and found["macs"]:
            flop = 2 * found["macs"]
            roof = min(ceiling["flops"], flop / found["bytes"] * ceiling["bandwidth"])
            rows = [
                ("kernel", found["kernel"]),
                ("time", f"{found['seconds'] * 1e6:.1f} µs, {found['share']:.1%} of the network"),
                ("work", f"{flop / 1e6:.1f} MFLOP over {found['bytes'] / 1e6:.2f} MB"),
                ("intensity", f"{flop / found['bytes']:.0f} FLOP a byte"),
                ("speed", f"{flop / found['seconds'] / 1e9:.0f} GFLOP/s"),
                ("roof here", f"{roof / 1e9:.0f} GFLOP/s ({_side(flop / found['bytes'], ceiling)})"),
                ("of the roof", f"{flop / found['seconds'] / roof:.0%}"),
            ]
    where = record["machine"]["processor"]
    head = f"Measured with {ceiling['threads']} threads on {where}, commit {record['commit']}:\n\n"
    return head + "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _side(intensity: float, ceiling: Record) -> str:
    bound = intensity * ceiling["bandwidth"] < ceiling["flops"]
    return "bound by memory" if bound else "bound by arithmetic"


def gpu_plan() -> str:
    """The step of the CUDA lowering."""
    return fenced(how_gpu_runs.plan(NETWORK, LAYER))


def gpu_kernel() -> str:
    """Its kernel's loops."""
    return fenced(how_gpu_runs.kernel(), "python")


def gpu_ptx() -> str:
    """What numba.cuda makes of them."""
    return fenced(how_gpu_runs.ptx(NETWORK, LAYER))


def gpu_loop() -> str:
    """What NVIDIA's assembler makes of that."""
    return fenced(how_gpu_runs.loop(NETWORK, LAYER))


def gpu_ladder() -> str:
    """The kernels that led there, from the results file."""
    return how_gpu_runs.ladder(read(LADDER)) + "\n"


def gpu_code() -> str:
    """Registers, memory and instructions in each precision."""
    return how_gpu_runs.code(NETWORK, LAYER) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    "text": text, "graph": graph, "rewrite": rewrite, "plan": plan, "kernel": kernel, "loop": loop,
    "roofline": roofline, "gpu_plan": gpu_plan, "gpu_kernel": gpu_kernel, "gpu_ptx": gpu_ptx, "gpu_loop": gpu_loop,
    "gpu_code": gpu_code, "gpu_ladder": gpu_ladder,
}  # fmt: skip


def measure() -> Record:
    """Profile the network on noise with random weights."""
    import netdsl
    from netdsl.benchmark import facts, noise

    model = netdsl.compile(built(), "random", threads=THREADS)
    found = model.profile(*noise(built(), 1, 0), rounds=50)
    return write(RESULT, facts([]), found.as_dict(), network=NETWORK, threads=THREADS)


def rewritten(document: str) -> str:
    """The document with every part made anew that can be made here; why others stay is said."""

    def anew(match: re.Match[str]) -> str:
        try:
            return match[1] + PARTS[match[2]]() + match[3]
        except Lacking as error:
            print(f"{match[2]} stays as it is: {error}", file=sys.stderr)
            return match[0]

    return PART.sub(anew, document)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", action="store_true")
    given = parser.parse_args(arguments)
    if given.measure:
        measure()
    if given.write or given.measure:
        if WIDTH != 16:
            sys.exit(f"the document shows vectors of 16 lanes; this processor's have {WIDTH}")
        DOCUMENT.write_text(rewritten(DOCUMENT.read_text("utf-8")), encoding="utf-8")
    elif given.part:
        try:
            print(PARTS[given.part](), end="")
        except Lacking as error:
            sys.exit(str(error))
    else:
        parser.error("name a part, or give --write or --measure")


if __name__ == "__main__":
    main()
