"""A CUDA driver made of Python: memory of the host, kernels interpreted.

It takes arguments as the real one does, by the addresses of packed words, and records launches while a stream is being
captured; so everything above the driver runs as it would on a GPU. Kernels are Python, which numba.cuda's simulator
interprets, in its process; or PTX as numba.cuda compiles it, on a machine made of NumPy, which takes a process without
the simulator.
"""

from __future__ import annotations

import ctypes
import enum
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from netdsl.backends.cuda import jit
from ptx.machine import Machine
from ptx.memory import Card
from ptx.text import parse

Result = enum.IntEnum("Result", ["CUDA_SUCCESS", "CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_OUT_OF_MEMORY"], start=0)
FINE, WRONG, NO_MEMORY = Result  # type: ignore[misc]
SYMBOL = "kernel"  # of every kernel, as kernels that were compiled in different processes may have the same
BYTES = 1 << 26  # of the virtual card
SUCCEED = (
    "cuInit", "cuCtxSetCurrent", "cuCtxSynchronize", "cuStreamSynchronize", "cuStreamDestroy", "cuEventRecord",
    "cuStreamWaitEvent", "cuEventSynchronize", "cuEventDestroy", "cuGraphExecDestroy", "cuGraphDestroy",
)  # fmt: skip


class VirtualDriver:
    """The driver's functions that the run time uses; `log` lists what was called, `card.blocks` what is allocated."""

    CUresult = Result
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=SimpleNamespace(value=1))
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=SimpleNamespace(value=2))
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK=0)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self, bytes_there: int = BYTES, watch: bool = True) -> None:
        self.log: list[str] = []
        self.card = Card(bytes_there)
        self.machine = Machine(self.card, watch)
        self.locked: dict[int, Any] = {}  # page-locked memory of the host
        self.unlockable = False  # whether there is none
        self.kernels: dict[bytes, Any] = {}  # by code
        self.modules: dict[int, Any] = {}
        self.recording: dict[int, list[Any]] = {}
        self.graphs: dict[int, list[Any]] = {}
        self._next = 1000

    def _number(self) -> int:
        self._next += 1
        return self._next

    def __getattr__(self, name: str) -> Any:
        """What needs no more than to succeed."""
        if name in SUCCEED:
            self.log.append(name)
            return lambda *_: (FINE,)
        if name in ("cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuEventCreate"):
            return lambda *_: (FINE, self._number())
        raise AttributeError(name)

    def cuEventElapsedTime(self, start: int, end: int) -> tuple[Any, ...]:
        return FINE, 0.5

    def cuMemGetInfo(self) -> tuple[Any, ...]:
        return FINE, self.card.free, len(self.card.bytes)

    def cuMemAlloc(self, count: int) -> tuple[Any, ...]:
        address = self.card.allocate(count) if count <= self.cuMemGetInfo()[1] else None
        return (NO_MEMORY, None) if address is None else (FINE, address)

    def cuMemHostAlloc(self, count: int, flags: int) -> tuple[Any, ...]:
        if self.unlockable:
            return NO_MEMORY, None
        block = np.full(count, 0xFF, np.uint8)
        self.locked[block.ctypes.data] = block
        return FINE, block.ctypes.data

    def cuMemFreeHost(self, address: int) -> tuple[Any, ...]:
        return (FINE if self.locked.pop(address, None) is not None else WRONG,)

    def cuMemFree(self, address: int) -> tuple[Any, ...]:
        return (FINE if self.card.release(address) else WRONG,)

    def cuMemcpyHtoD(self, to: int, source: int, count: int) -> tuple[Any, ...]:
        ctypes.memmove(to, source, count)
        return (FINE,)

    def cuMemcpyHtoDAsync(self, to: int, source: int, count: int, stream: int) -> tuple[Any, ...]:
        assert stream not in self.recording
        return self.cuMemcpyHtoD(to, source, count)

    cuMemcpyDtoHAsync = cuMemcpyHtoDAsync

    def cuModuleLoadData(self, code: bytes) -> tuple[Any, ...]:
        number = self._number()
        self.modules[number] = self.kernels[code]
        return FINE, number

    def cuModuleGetFunction(self, module: int, symbol: bytes) -> tuple[Any, ...]:
        return (FINE, self.modules[module]) if symbol == SYMBOL.encode() else (WRONG, None)

    def cuFuncGetAttribute(self, attribute: int, kernel: Any) -> tuple[Any, ...]:
        return FINE, 1024

    def cuLaunchKernel(self, kernel: Any, *rest: Any) -> tuple[Any, ...]:
        *sizes, shared, stream, pointers, extra = rest
        assert extra == shared == 0 and len(sizes) == 6 and all(n >= 1 for n in sizes)
        launch = kernel.launch(sizes[:3], sizes[3:], pointers)
        if stream in self.recording:
            self.recording[stream].append(launch)
        else:
            self.log.append(f"launch {kernel.name}")
            launch()
        return (FINE,)

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.recording[stream] = []
        return (FINE,)

    def cuStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        number = self._number()
        self.graphs[number] = self.recording.pop(stream)
        return FINE, number

    def cuGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        return FINE, graph

    def cuGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:
        self.log.append(f"graph of {len(self.graphs[graph])}")
        for launch in self.graphs[graph]:
            launch()
        return (FINE,)


@dataclass(frozen=True)
class Simulated:
    """A kernel as Python, for numba.cuda's simulator. types: of its parameters."""

    name: str
    function: Any
    types: tuple[str, ...]

    def launch(self, grid: Any, block: Any, pointers: int) -> Callable[[], None]:
        """A launch with the arguments that are there now."""
        from numba import cuda

        values = tuple(_arguments(self.types, pointers))
        return lambda: cuda.jit(self.function)[tuple(grid), tuple(block)](*values)


@dataclass(frozen=True)
class Emulated:
    """A kernel as PTX, for the machine."""

    name: str
    code: Any
    machine: Machine

    def launch(self, grid: Any, block: Any, pointers: int) -> Callable[[], None]:
        """A launch with the arguments that are there now."""
        words = list(_words(pointers, len(self.code.parameters)))
        return lambda: self.machine.launch(self.code, grid, block, words)


def _words(pointers: int, count: int) -> Iterator[int]:
    """What lies at the addresses of so many parameters, 8 bytes each."""
    for place in range(count):
        yield ctypes.c_int64.from_address(ctypes.c_uint64.from_address(pointers + 8 * place).value).value


def _arguments(types: tuple[str, ...], pointers: int) -> Iterator[Any]:
    """What a kernel with parameters of these types reads at their addresses."""
    place = 0

    def word(kind: Any) -> Any:
        nonlocal place
        address = ctypes.c_uint64.from_address(pointers + 8 * place).value
        place += 1
        return kind.from_address(address).value

    scalars = {"int64": ctypes.c_int64, "int32": ctypes.c_int32, "float32": ctypes.c_float}
    for kind in types:
        if not kind.endswith("[]"):
            value = word(scalars[kind])
            yield value if kind == "int64" else np.dtype(kind).type(value)
            continue
        none, nobody, size, item, address, shape, stride = (word(ctypes.c_int64) for _ in range(7))
        assert (none, nobody, item, shape, stride) == (0, 0, 4, size, 4)
        raw = (ctypes.c_uint8 * (4 * size)).from_address(address) if size else bytearray()
        yield np.frombuffer(raw, kind.removesuffix("[]"))


def install(
    capability: tuple[int, int] = (9, 0), compiled: bool = False, bytes_there: int = BYTES, watch: bool = True
) -> VirtualDriver:
    """Put a virtual driver and card in place of real ones, in this process.

    compiled    kernels are compiled to PTX, and that is interpreted
    watch       of a compiled one: see to it that threads do not meet in memory unordered
    """
    import netdsl.backends.cuda.simt  # numba.cuda looks for the packages that are replaced here
    from netdsl.backends.cuda import device

    fake = VirtualDriver(bytes_there, watch)
    if compiled:  # the compilers want the packages as they are
        from netdsl.backends.cuda import driver

        driver.cu = fake
    else:
        bindings = ModuleType("cuda.bindings")
        bindings.driver = fake  # type: ignore[attr-defined]
        sys.modules.setdefault("cuda", ModuleType("cuda"))
        sys.modules["cuda.bindings"] = bindings
        sys.modules.pop("netdsl.backends.cuda.driver", None)
        vars(netdsl.backends.cuda).pop("driver", None)
    device._opened = os.getpid(), device.Device("a virtual card", capability, 132, bytes_there)

    def load(kernel: Any, kinds: Any, capability: Any) -> jit.Compiled:
        code = f"{kernel!r} {capability}".encode()
        types = tuple("int32" if p in kernel.narrow else kinds[p] for p in kernel.parameters)
        if code not in fake.kernels:
            if compiled:
                text, _ = jit.to_ptx(kernel, kinds, capability)
                fake.kernels[code] = Emulated(kernel.name, parse(text), fake.machine)
            else:
                fake.kernels[code] = Simulated(kernel.name, kernel.build(), types)
        return jit.Compiled(SYMBOL, kernel.parameters, types, code)

    jit.load = load
    return fake
