"""The plan's language: a step is one launch of a kernel, known by name, with its geometry and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

from netdsl.backends.cuda.views import Address, Argument, Counters, Data, View

Size3 = tuple[int, int, int]

BLOCK = 256  # chosen: threads of a block where each thread makes one value
MOST_BLOCKS = 2**31 - 1  # of a grid's first side; the other two take 65535 (CUDA programming guide, compute capability)


@dataclass(frozen=True)
class Kernel:
    """A kernel by name: the function `make_<factory>` of module `kernels/<module>.py`, with its constants.

    Arguments go by name: a kernel is given those that its parameters name. The function may carry `launch_bounds`
    (threads of a block, blocks that a multiprocessor shall hold) and `narrow`.
    """

    module: str
    factory: str
    constants: tuple[Any, ...] = ()

    def between(self, *views: View) -> Kernel:
        """The kernel for tensors of these types; without a word they are float32."""
        types = tuple(view.dtype for view in views)
        return self if set(types) == {"float32"} else replace(self, constants=(*self.constants, *types))

    @property
    def name(self) -> str:
        """Name that decodes, such as depthwise_silu."""
        return "_".join([self.factory, *(str(c) for c in self.constants if c is not None)])

    def build(self) -> Callable[..., None]:
        """The kernel's Python function (imports Numba)."""
        return _build(self)

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.build()).parameters)

    @property
    def narrow(self) -> frozenset[str]:
        """Parameters that the kernel wants as int32, for fewer registers: its function's attribute `narrow`."""
        return getattr(self.build(), "narrow", frozenset())


@cache
def _build(kernel: Kernel) -> Callable[..., None]:
    made = import_module(f"netdsl.backends.cuda.kernels.{kernel.module}")
    function: Callable[..., None] = getattr(made, f"make_{kernel.factory}")(*kernel.constants)
    return function


@dataclass(frozen=True)
class Geometry:
    """How many blocks of how many threads, (x, y, z) each. What kernels share they declare themselves."""

    grid: Size3
    block: Size3

    @property
    def threads(self) -> int:
        return self.block[0] * self.block[1] * self.block[2]


def one_each(count: int, block: int = BLOCK) -> Geometry:
    """A thread for each of `count` values."""
    return Geometry((-(-count // block), 1, 1), (block, 1, 1))


def block_each(count: int, threads: int) -> Geometry:
    """A block of threads for each of `count` values."""
    return Geometry((count, 1, 1), (threads, 1, 1))


def team(count: int, most: int = BLOCK) -> int:
    """Threads that share a reduction of `count` values: a power of two, a warp at least."""
    threads = 32
    while threads < min(count, most):
        threads *= 2
    return threads


@dataclass(frozen=True, eq=False)
class Step:
    """One launch of the plan.

    work    about how many multiply-accumulates or moved values, for people
    node    path of the network's node, for people
    """

    kernel: Kernel
    geometry: Geometry
    arguments: Mapping[str, Argument]
    work: int
    node: str

    def buffers(self) -> set[int]:
        """Buffers of the arena that the step reads or writes."""
        return {a.view.buffer for a in self.arguments.values() if isinstance(a, Address)}

    def kinds(self) -> dict[str, str]:
        """The type of each argument by name, as `signature` has them but for what the kernel wants narrower."""
        return {name: _type(argument, False) for name, argument in self.arguments.items()}

    def signature(self) -> tuple[str, ...]:
        """The type of each argument in the kernel's order: "int64", "float32"; of arrays "float32[]", "int32[]"."""
        narrow = self.kernel.narrow
        return tuple(_type(self.arguments[name], name in narrow) for name in self.kernel.parameters)


def _type(argument: Argument, narrow: bool) -> str:
    if isinstance(argument, int):
        return "int32" if narrow else "int64"
    if isinstance(argument, Data):
        return f"{argument.values.dtype.name}[]"
    if isinstance(argument, Counters):
        return "int32[]"
    if isinstance(argument, float):
        return "float32"
    return "int64" if isinstance(argument, Address) else "float32[]"
