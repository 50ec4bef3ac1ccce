"""The processor that kernels are compiled for: its name, features, vector width and register count.

Read through llvmlite alone, so that asking costs no Numba import. `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` are
honoured, which is how the narrower widths are tested on a wide machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Target:
    """name, features   as LLVM spells them
    width            float32 lanes of one vector register
    registers        vector registers that one kernel may use
    widens_float16   whether it has an instruction that makes float32 of float16
    """

    name: str
    features: str
    width: int
    registers: int
    widens_float16: bool


@cache
def host() -> Target:
    """The target of this process."""
    import llvmlite.binding as llvm

    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    enabled = {f[1:] for f in features.split(",") if f.startswith("+")}
    if "avx512f" in enabled:
        return Target(name, features, 16, 32, True)
    if "avx2" in enabled and "fma" in enabled:
        return Target(name, features, 8, 16, "f16c" in enabled)
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return Target(name, features, 4, 32, True)
    return Target(name, features, 4, 16, "f16c" in enabled)


WIDTH = host().width
VECTOR_BYTES = 4 * WIDTH
FMA_FROM_MEMORY = WIDTH == 16  # whether a multiply-add may read a factor itself: x86, whose vectors alone are so wide
