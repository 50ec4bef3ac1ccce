"""Kernels as machine code for one kind of GPU: compiled once, kept as files. Compiling needs no GPU.

numba.cuda makes PTX of a kernel's Python function, and NVIDIA's linker makes machine code (a cubin) of that. A process
whose kernels are all kept never imports Numba.

The key covers everything the code depends on: the kind of GPU, the versions of the compilers, and the text of every
source file of this package and of `plan/winograd.py`. A file that is damaged, half-written or not readable counts as
absent; a folder that cannot be written means no cache, not an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from netdsl import kept
from netdsl.backends.cuda.device import INSTALL
from netdsl.backends.cuda.steps import Kernel
from netdsl.errors import DeviceError
from netdsl.plan import winograd

Capability = tuple[int, int]

_COMPILERS = (
    "numba", "numba-cuda", "llvmlite", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvcc-cu12",
    "nvidia-nvjitlink-cu12",
)  # fmt: skip
_lock = threading.RLock()
_loaded: dict[tuple[Kernel, Capability], Compiled] = {}


@dataclass(frozen=True)
class Compiled:
    """A kernel as kept: the symbol to look up, its parameters' names and types in order, its machine code.

    Types are "int64", "int32", "float32", or of an array "float32[]", "int32[]".
    """

    symbol: str
    parameters: tuple[str, ...]
    types: tuple[str, ...]
    code: bytes


@cache
def _environment() -> str:
    """Digest of all that machine code depends on besides the kernel's own name and the kind of GPU."""
    digest = hashlib.sha256()
    for name in _COMPILERS:
        with suppress(metadata.PackageNotFoundError):
            digest.update(f"{name} {metadata.version(name)}\0".encode())
    for path in [*sorted(Path(__file__).parent.rglob("*.py")), Path(winograd.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _path(kernel: Kernel, capability: Capability) -> Path:
    exact = zlib.crc32(repr(kernel).encode())  # a name may be that of several kernels
    return kept.folder("kernels") / f"{kernel.name}-{exact:08x}-sm{capability[0]}{capability[1]}-{_environment()}.cubin"


def is_cached(kernel: Kernel, capability: Capability) -> bool:
    """Whether a kernel needs no compilation (loaded, or a file for it is there)."""
    return (kernel, capability) in _loaded or _path(kernel, capability).exists()


def load(kernel: Kernel, kinds: Mapping[str, str], capability: Capability) -> Compiled:
    """A kernel's machine code; compiled unless it is kept. kinds: the type of each argument by name."""
    with _lock:
        found = _loaded.get((kernel, capability))
        if found is None:
            path = _path(kernel, capability)
            found = _read(path)
            if found is None:
                found = compile_kernel(kernel, kinds, capability)
                _write(path, found)
            _loaded[kernel, capability] = found
        return found


def compile_kernel(kernel: Kernel, kinds: Mapping[str, str], capability: Capability) -> Compiled:
    """Compile a kernel for GPUs of a compute capability. kinds: the type of each argument by name.

    Errors: DeviceError when the compilers are not there, or do not know that kind of GPU.
    """
    try:
        return _compiled(kernel, kinds, capability)
    except Exception as error:  # whatever the compilers raise, and they change it, the user is told
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"kernel {kernel.name} cannot be compiled for compute capability {capability[0]}.{capability[1]}"
        hint = f"bring the compilers up to date: {INSTALL}"
        raise DeviceError(f"{message}: {reason}", code="cuda-compile", hint=hint) from error


def _compiled(kernel: Kernel, kinds: Mapping[str, str], capability: Capability) -> Compiled:
    ptx, types = to_ptx(kernel, kinds, capability)
    (symbol,) = re.findall(r"\.entry\s+(\w+)", ptx)
    return Compiled(symbol, kernel.parameters, types, linked(ptx, capability))


def to_ptx(kernel: Kernel, kinds: Mapping[str, str], capability: Capability) -> tuple[str, tuple[str, ...]]:
    """A kernel as PTX, and the types of its parameters. Raises whatever the compilers raise."""
    from numba import cuda, types

    function, narrow = kernel.build(), kernel.narrow
    names = tuple("int32" if p in narrow else kinds[p] for p in kernel.parameters)
    signature = tuple(
        getattr(types, n.removesuffix("[]"))[::1] if n.endswith("[]") else getattr(types, n) for n in names
    )
    options: dict[str, Any] = {"device": False, "abi": "numba", "cc": capability}
    bounds = getattr(function, "launch_bounds", None)
    if bounds is not None:
        options["launch_bounds"] = bounds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compilers about themselves
        ptx, _ = cuda.compile(function, signature, **options)
    return ptx, names


def linked(ptx: str, capability: Capability) -> bytes:
    """PTX as machine code, a cubin. Raises whatever the linker raises."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=f"sm_{capability[0]}{capability[1]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compilers about themselves
        return bytes(Linker(ObjectCode.from_ptx(ptx.encode()), options=options).link("cubin").code)


def _read(path: Path) -> Compiled | None:
    """A kernel from the cache, or None."""
    content = kept.read(path)
    if content is None:
        return None
    line, _, code = content.partition(b"\n")
    facts = json.loads(line)
    return Compiled(facts["symbol"], tuple(facts["parameters"]), tuple(facts["types"]), code)


def _write(path: Path, compiled: Compiled) -> None:
    facts = {"symbol": compiled.symbol, "parameters": compiled.parameters, "types": compiled.types}
    kept.keep_kernel(path, json.dumps(facts).encode() + b"\n" + compiled.code)
