"""The language that kernels are written in: numba.cuda, seen by kernel modules through this one door.

Importing it imports numba.cuda, or its simulator where NUMBA_ENABLE_CUDASIM=1 says so; so kernel modules, which need
it, are imported only when a kernel is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda

__all__ = ["cuda", "device_function"]


def device_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a Python function one that kernels may call.

    It is inlined: a function compiled apart would ask the driver what to compile for, and there may be none.
    """
    made: Callable[..., Any] = cuda.jit(device=True, inline="always")(function)
    return made
