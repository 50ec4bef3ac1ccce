"""Kernels as machine code: compiled by Numba once, kept as object files, placed into memory without Numba or LLVM.

A kernel is a plain function of integers: which thread this is, of how many, then its own parameters, which it is given
as a block of int64. `load` returns the address of its machine code. A process whose kernels are all in the cache never
imports Numba.

The cache key covers everything the code depends on: the processor and its features, the versions of Numba, llvmlite
and Python, and the text of every source file of this package that kernels are made from. A file that is damaged,
half-written or not readable counts as absent; a folder that cannot be written means no cache, not an error.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from netdsl import kept
from netdsl.backends.cpu.objects import place
from netdsl.backends.cpu.target import WIDTH, host, version
from netdsl.frozen import frozen
from netdsl.plan import winograd

Progress = Callable[[str, int, int], None]  # (kernel, how many are done, of how many)

_lock = threading.RLock()
_loaded: dict[str, tuple[int, tuple[str, ...]]] = {}
_libraries: list[Any] = []  # whose code is in use


@cache
def environment() -> str:
    """Digest of all that machine code depends on besides the kernel's own name."""
    digest = hashlib.sha256()
    target = host()
    digest.update("\0".join((sys.version, target.name, target.features)).encode())
    for package in ("numba", "llvmlite"):
        digest.update(version(package))
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _sources() -> list[Path]:
    """The files that kernels are made from."""
    folder = Path(__file__).parent
    names = "jit", "codegen", "words", "entry", "mailbox", "simd", "tile", "transforms"
    words = (folder / f"{name}.py" for name in names)
    return sorted([*words, *folder.glob("kernels/*.py"), Path(winograd.__file__)])


def _path(name: str) -> Path:
    return kept.folder("kernels") / f"{name}-{environment()}.o"


@frozen
class Compiled:
    """A kernel as kept: the symbol to look up, its parameters' names in the order of the argument block, its code."""

    symbol: str
    parameters: tuple[str, ...]
    code: bytes


@frozen
class Kernel:
    """A kernel by name: the function `make_<factory>` of module `kernels/<module>.py`, with its constants."""

    module: str
    factory: str
    constants: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """Name that decodes, such as conv_14x2_p16_tanh_f32x16."""
        parts = [self.factory, *(str(c) for c in self.constants if c is not None), f"f32x{WIDTH}"]
        return "_".join(parts)

    def build(self) -> Callable[..., None]:
        """The kernel's Python function (imports Numba)."""
        made = import_module(f"netdsl.backends.cpu.kernels.{self.module}")
        function: Callable[..., None] = getattr(made, f"make_{self.factory}")(*self.constants)
        return function


RUN = Kernel("execute", "run")
SERVE = Kernel("execute", "serve")
EACH = Kernel("execute", "each")


def _read(name: str) -> Compiled | None:
    """A kernel from the cache, or None."""
    content = kept.read(_path(name))
    if content is None:
        return None
    line, _, code = content.partition(b"\n")
    symbol, *parameters = line.decode().split(" ")
    return Compiled(symbol, tuple(parameters), code)


def _write(name: str, compiled: Compiled) -> None:
    head = " ".join([compiled.symbol, *compiled.parameters]).encode()
    kept.keep_kernel(_path(name), head + b"\n" + compiled.code)


def compile_kernel(kernel: Kernel) -> Compiled:
    """Compile a kernel with Numba."""
    library, symbol, parameters = _lowered(kernel)
    return Compiled(symbol, parameters, library.object_code())


def assembly(kernel: Kernel) -> str:
    """A kernel's machine code as LLVM writes it, for people (AT&T syntax: the result is the last operand)."""
    text: str = _lowered(kernel)[0].assembly()
    return text


def _lowered(kernel: Kernel) -> tuple[Any, str, tuple[str, ...]]:
    """A kernel's code library, optimised, the function to call in it, and that function's parameters.

    A kernel with the parameters (…, begin, end, parts, …) is entered as (argument block, *entry.CALL): those that CALL
    does not hold are read from the block, int64 each. Others (the executor) are entered as they are written.
    """
    import inspect

    import llvmlite.binding as llvm
    from numba import types

    from netdsl.backends.cpu.codegen import lower
    from netdsl.backends.cpu.entry import CALL, add_entry

    llvm.initialize_native_asmparser()  # kernels may hold an instruction spelled out
    function = kernel.build()
    parameters = tuple(inspect.signature(function).parameters)
    result = lower(function, (types.intp,) * len(parameters), types.void)
    symbol = result.fndesc.llvm_func_name
    if parameters[0] in CALL:
        symbol, parameters = add_entry(result, parameters), tuple(p for p in parameters if p not in CALL)
    result.library.optimize(symbol)
    return result.library, symbol, parameters


@cache
def _linker() -> Any:
    import llvmlite.binding as llvm

    with suppress(RuntimeError):  # newer llvmlite initialises itself and refuses these calls
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler(llvm.Target.from_default_triple().create_target_machine(jit=True))


def _link(compiled: Compiled) -> int:
    """Load object code by LLVM's linker; the address of its function.

    Each object becomes a library with names of its own: symbols are unique within the process that compiled them, not
    beyond.
    """
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(compiled.code).add_current_process()
    library = builder.export_symbol(compiled.symbol).link(_linker(), f"netdsl-{len(_libraries)}")
    _libraries.append(library)
    address: int = library[compiled.symbol]
    return address


def load(kernel: Kernel) -> tuple[int, tuple[str, ...]]:
    """Address of a kernel's machine code and its parameters' names; compiled unless cached."""
    name = kernel.name
    with _lock:
        if name not in _loaded:
            compiled = _read(name)
            if compiled is None:
                compiled = compile_kernel(kernel)
                _write(name, compiled)
            address = place(compiled.code, compiled.symbol)
            _loaded[name] = _link(compiled) if address is None else address, compiled.parameters
        return _loaded[name]


def is_cached(kernel: Kernel) -> bool:
    """Whether a kernel needs no compilation (loaded, or a file for it is there)."""
    return kernel.name in _loaded or _path(kernel.name).exists()


def is_kept(kernel: Kernel) -> bool:
    """Whether a whole file for a kernel is in the cache."""
    return kept.read(_path(kernel.name)) is not None


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # a thread that held it is not in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def load_all(kernels: Iterable[Kernel], progress: Progress | None = None) -> None:
    """Make kernels ready, telling `progress` of each that has to be compiled. Several processors share the work."""
    missing = [k for k in dict.fromkeys(kernels) if not is_cached(k)]
    if not missing:
        return
    from netdsl.backends.cpu.warm import compile_all

    def started(kernel: Kernel) -> None:
        if progress:
            progress(kernel.name, sum(map(is_cached, missing)), len(missing))

    compile_all(missing, started)
    if progress:
        progress("", len(missing), len(missing))
