"""CUDA kernels compiled to machine code on a machine without a GPU: registers, shared memory, spills, instructions.

Needs numba-cuda and NVIDIA's disassembler from the package index:
pip install 'netdsl[cuda13]' nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from netdsl.backends.cuda.jit import Capability, compile_kernel
from netdsl.backends.cuda.steps import Kernel

INSTALL = "pip install 'netdsl[cuda13]' nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
FLOATS = {"low", "high", "a"}  # parameters of kernels of convolutions that are no int64
ARRAYS = {"arena": "float32[]", "w": "float32[]", "bias": "float32[]", "counters": "int32[]"}
REGISTERS = 65536  # of a multiprocessor, of every capability named here (CUDA programming guide, 16.2)
WARPS = {(7, 5): 32, (8, 0): 64, (9, 0): 64}  # resident warps of a multiprocessor
BLOCKS = {(7, 5): 16, (8, 0): 32, (9, 0): 32}  # resident blocks of a multiprocessor
SHARED = {(7, 5): 64 * 1024, (8, 0): 164 * 1024, (9, 0): 228 * 1024}  # bytes of shared memory of a multiprocessor
RESERVED = {(7, 5): 0, (8, 0): 1024, (9, 0): 1024}  # bytes of it that the system takes of each block


@dataclass(frozen=True)
class Cubin:
    """What a kernel needs on one kind of GPU.

    spills          bytes of a thread's memory for what finds no register, local arrays included
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
    lacking += [name for name in ("cuobjdump", "nvdisasm") if _tool(name) is None]
    return f"{', '.join(lacking)} not found: {INSTALL}" if lacking else None


@cache
def _tool(name: str) -> str | None:
    """Path of one of NVIDIA's programs: of the installed packages, or of the system."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(place).glob(f"*/bin/{name}")):
            return str(path)
    return shutil.which(name)


def kinds_of(kernel: Kernel) -> dict[str, str]:
    """The types of the arguments that a kernel of convolutions gets."""
    return {name: ARRAYS.get(name, "float32" if name in FLOATS else "int64") for name in kernel.parameters}


def compiled(kernel: Kernel, capability: Capability) -> Cubin:
    """A kernel of convolutions, compiled as it is for a network, for one compute capability."""
    return examined(compile_kernel(kernel, kinds_of(kernel), capability).code, capability)


def examined(code: bytes, capability: Capability) -> Cubin:
    """What machine code of one kernel needs. Raises RuntimeError where NVIDIA's programs cannot read it."""
    usage, listing = _dumped(code, "-res-usage"), _dumped(code, "-sass")
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    names = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", listing, re.MULTILINE)
    counts = Counter(name for predicate, name in names if predicate.strip() != "@!PT")  # those are never executed
    counted = RESERVED[capability] if capability >= (9, 0) and found["SHARED"] else 0  # in what is reported
    shared = found["SHARED"] - counted
    return Cubin(capability, found["REG"], shared, found["STACK"] + found["LOCAL"], counts)


def disassembled(code: bytes) -> list[tuple[int, str]]:
    """The instructions of machine code of one kernel, each with its address."""
    found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s", _dumped(code, "-sass"), re.MULTILINE)
    return [(int(address, 16), text) for address, text in found]


def loop_of(instructions: Sequence[tuple[int, str]], name: str) -> list[tuple[int, str]]:
    """The smallest loop with the most instructions of a name: from the target of a branch back to that branch."""
    loops = []
    for address, text in instructions:
        branch = re.search(r"BRA (0x[0-9a-f]+)", text)
        if branch and (target := int(branch[1], 16)) < address:
            loops.append([i for i in instructions if target <= i[0] <= address])
    return max(loops, key=lambda loop: (sum(name in text for _, text in loop), -len(loop)))


def _dumped(code: bytes, what: str) -> str:
    """What cuobjdump says of machine code."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(code)
        return _run("cuobjdump", what, str(path))


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
