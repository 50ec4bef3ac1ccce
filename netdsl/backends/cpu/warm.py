"""Kernels of the CPU compiled by several processes. `python -m netdsl.backends.cpu.warm` is a helper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from netdsl import helpers
from netdsl.backends.cpu.jit import Kernel, is_cached, load

SECONDS = {"winograd": 0.6, "conv": 0.3}  # chosen: about what compiling takes, others less; only their order matters


def compile_all(kernels: Sequence[Kernel], started: Callable[[Kernel], None]) -> None:
    """Load kernels that are not in the cache; `started` is told of each that is compiled in this process."""
    ordered = sorted(kernels, key=lambda k: -SECONDS.get(k.factory, 0.0))
    compiler = helpers.Compiler("netdsl.backends.cpu.warm", _line, load, processes=4, patience=10.0)  # chosen
    compiler.compile_all(ordered, started)


def _line(kernel: Kernel) -> Any:
    return kernel.module, kernel.factory, kernel.constants


def _load(line: Any) -> None:
    module, factory, constants = line
    kernel = Kernel(module, factory, tuple(constants))
    if not is_cached(kernel):  # another process may have been faster
        load(kernel)


if __name__ == "__main__":
    helpers.serve(_load)
