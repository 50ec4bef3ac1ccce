"""CUDA kernels compiled to machine code on a machine without a GPU: registers, shared memory, spills, instructions.

Needs numba-cuda and NVIDIA's compilers from the package index:
pip install 'netdsl[cuda13]' nvidia-cuda-nvcc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Capability = tuple[int, int]

INSTALL = "pip install 'netdsl[cuda13]' nvidia-cuda-nvcc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
REGISTERS = 65536  # of a multiprocessor, of every capability named here (CUDA programming guide, 16.2)
WARPS = {(7, 5): 32, (8, 0): 64, (9, 0): 64}  # resident warps of a multiprocessor
BLOCKS = {(7, 5): 16, (8, 0): 32, (9, 0): 32}  # resident blocks of a multiprocessor
SHARED = {(7, 5): 64 * 1024, (8, 0): 164 * 1024, (9, 0): 228 * 1024}  # bytes of shared memory of a multiprocessor
RESERVED = {(7, 5): 0, (8, 0): 1024, (9, 0): 1024}  # bytes of it that the system takes of each block


@dataclass(frozen=True)
class Cubin:
    """What a kernel needs on one kind of GPU.

    spills          bytes stored to and loaded from local memory for want of registers, and of local arrays
    instructions    how often each instruction stands in the machine code
    """

    capability: Capability
    registers: int
    shared_bytes: int
    spills: int
    instructions: Mapping[str, int]

    def count(self, start: str) -> int:
        """Instructions whose names start so."""
        return sum(n for name, n in self.instructions.items() if name.startswith(start))

    def resident_blocks(self, threads: int) -> int:
        """Blocks of so many threads that a multiprocessor holds at a time."""
        warps = -(-threads // 32)
        each = -(-self.registers * 32 // 256) * 256  # registers go to warps in units of 256
        shared = self.shared_bytes + RESERVED[self.capability]
        return min(
            BLOCKS[self.capability], WARPS[self.capability] // warps, REGISTERS // each // warps,
            SHARED[self.capability] // shared if shared else BLOCKS[self.capability],
        )  # fmt: skip

    def occupancy(self, threads: int) -> float:
        """Part of the warps that a multiprocessor could hold which blocks of so many threads fill."""
        return self.resident_blocks(threads) * -(-threads // 32) / WARPS[self.capability]


def missing() -> str | None:
    """Why kernels cannot be compiled here, or None."""
    lacking = [name for name in ("numba_cuda", "cuda") if importlib.util.find_spec(name) is None]
    lacking += [name for name in ("ptxas", "cuobjdump", "nvdisasm") if _tool(name) is None]
    return f"{', '.join(lacking)} not found: {INSTALL}" if lacking else None


@cache
def _tool(name: str) -> str | None:
    """Path of one of NVIDIA's programs: of the installed packages, or of the system."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(place).glob(f"*/bin/{name}")):
            return str(path)
    return shutil.which(name)


def compile_kernel(function: Callable[..., None], signature: tuple[str, ...], capability: Capability) -> Cubin:
    """A kernel's Python function, with its types as "int64", "float32[]", …, for one compute capability.

    Raises RuntimeError with the assembler's words where it refuses.
    """
    import numba
    from numba import cuda

    def kind(name: str) -> Any:
        if name.endswith("[]"):
            return numba.types.Array(getattr(numba, name[:-2]), 1, "C")
        return getattr(numba, name)

    bounds = getattr(function, "launch_bounds", None)
    options: dict[str, Any] = {"launch_bounds": bounds} if bounds else {}
    types = tuple(kind(name) for name in signature)
    ptx, _ = cuda.compile(function, types, device=False, abi="numba", cc=capability, output="ptx", **options)
    return assemble(ptx, capability)


def assemble(ptx: str, capability: Capability) -> Cubin:
    """PTX text assembled. Raises RuntimeError with the assembler's words where it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx, encoding="utf-8")
        report = _run("ptxas", "-v", f"-arch=sm_{capability[0]}{capability[1]}", str(source), "-o", str(made))
        listing = _run("cuobjdump", "-sass", str(made))
    found = re.search(r"Used (\d+) registers", report)
    assert found is not None, report
    stack = max(map(int, re.findall(r"(\d+) bytes stack frame", report)), default=0)
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", report)))
    shared = re.search(r"(\d+) bytes smem", report)
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", listing, re.MULTILINE)
    counts = Counter(name for predicate, name in names if predicate.strip() != "@!PT")  # those are never executed
    return Cubin(capability, int(found[1]), int(shared[1]) if shared else 0, max(stack, spilled), counts)


def _run(name: str, *arguments: str) -> str:
    program = _tool(name)
    if program is None:
        raise RuntimeError(f"{name} not found: {INSTALL}")
    path = f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # cuobjdump calls nvdisasm
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr
