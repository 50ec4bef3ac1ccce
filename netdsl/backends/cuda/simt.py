"""The language that kernels are written in: numba.cuda, seen by kernel modules through this one door.

Importing it imports numba.cuda, or its simulator where NUMBA_ENABLE_CUDASIM=1 says so; so kernel modules, which need
it, are imported only when a kernel is built.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda, types

from netdsl.backends.cuda import device

__all__ = ["cuda", "device_function"]


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a Python function one that kernels may call.

    It is inlined: a function compiled apart would ask the driver what to compile for, and there may be none.
    """
    made: Callable[..., Any] = cuda.jit(device=True, inline="always")(function)
    return made


def _shared_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    """Shared memory of one line of a kernel, whatever the alignment."""
    from numba.np.numpy_support import as_dtype

    caller = sys._getframe(1)
    place = caller.f_code.co_filename, caller.f_lineno
    if place not in self._allocations:
        self._allocations[place] = np.empty(shape, as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)
    return self._allocations[place]


if device.simulated():
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    if "alignment" not in inspect.signature(FakeCUDAShared.array).parameters:  # the simulator that comes with Numba
        FakeCUDAShared.array = _shared_array
