"""The run time under numba.cuda's simulator: the words of `driver`, arrays being NumPy's and launches plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from netdsl.backends.cuda.steps import Geometry, Kernel

MEMORY_BYTES = 2**30  # chosen: more is not meant for a simulator


def enter() -> None:
    """There is nothing to enter."""


def free_bytes() -> int:
    return MEMORY_BYTES


def empty(count: int, dtype: Any = np.float32) -> NDArray[Any]:
    """A flat array, its values undefined: the least likely ones, so that a read of them shows."""
    return np.full(count * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)  # nan, in halves too


def upload(values: NDArray[Any]) -> NDArray[Any]:
    return np.array(values).reshape(-1)


def page_locked(count: int) -> None:
    """There is none, and no need of it."""


class Stream:
    """Everything is done at once."""

    def send(self, values: NDArray[Any], array: NDArray[Any]) -> None:
        array[: values.size] = values

    def fetch(self, array: NDArray[Any], values: NDArray[Any]) -> None:
        values[:] = array[: values.size]

    def after(self, other: int = 0) -> None:
        """Nothing runs beside the host."""

    def wait(self) -> None:
        """Nothing is left to wait for."""


@cache
def _interpreted(kernel: Kernel) -> Any:
    return cuda.jit(kernel.build())


class Launch:
    """One launch of a kernel with its arguments."""

    def __init__(
        self, kernel: Kernel, kinds: Mapping[str, str], geometry: Geometry, values: Mapping[str, Any],
        capability: tuple[int, int],
    ) -> None:  # fmt: skip
        self._kernel, self._geometry = kernel, geometry
        self._values = {name: _value(values[name], kinds[name], name in kernel.narrow)
                        for name in kernel.parameters if name in values}  # fmt: skip

    def __call__(self, stream: Stream, ports: Mapping[str, Any] | None = None) -> None:
        values = {**self._values, **(ports or {})}
        geometry = self._geometry
        run = _interpreted(self._kernel)[geometry.grid, geometry.block]
        run(*(values[name] for name in self._kernel.parameters))


def _value(value: Any, kind: str, narrow: bool) -> Any:
    if narrow:
        return np.int32(value)
    return np.float32(value) if kind == "float32" else value
