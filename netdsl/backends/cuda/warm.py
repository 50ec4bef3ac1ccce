"""Kernels of a GPU compiled by several processes: `python -m netdsl.backends.cuda.warm` is a helper, needing no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netdsl import helpers
from netdsl.backends.cuda import jit
from netdsl.backends.cuda.steps import Kernel

Work = tuple[Kernel, Mapping[str, str]]  # a kernel, and the type of each argument by name

SECONDS = {"gemm": 3.5, "gemv": 1.5, "winograd": 3.0}  # chosen: about what compiling takes, by module; for the order


def compile_all(work: Sequence[Work], capability: jit.Capability, started: Callable[[Work], None]) -> None:
    """Load kernels that are not in the cache; `started` is told of each that is compiled in this process."""

    def line(one: Work) -> Any:
        kernel, kinds = one
        return kernel.module, kernel.factory, kernel.constants, dict(kinds), capability

    def load(one: Work) -> None:
        jit.load(*one, capability)

    ordered = sorted(work, key=lambda one: -SECONDS.get(one[0].module, 0.0))
    compiler = helpers.Compiler("netdsl.backends.cuda.warm", line, load, processes=8, patience=60.0)  # chosen
    compiler.compile_all(ordered, started)


def _load(line: Any) -> None:
    module, factory, constants, kinds, (major, minor) = line
    kernel = Kernel(module, factory, tuple(constants))
    if not jit.is_cached(kernel, (major, minor)):  # another process may have been faster
        jit.load(kernel, kinds, (major, minor))


if __name__ == "__main__":
    helpers.serve(_load)
