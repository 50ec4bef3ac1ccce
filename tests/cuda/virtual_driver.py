"""A CUDA driver made of Python: memory of the host, kernels interpreted by numba.cuda's simulator.

It takes arguments as the real one does, by the addresses of packed words, and records launches while a stream is being
captured; so everything above the driver runs as it would on a GPU. Run it in the simulator's process.
"""

from __future__ import annotations

import ctypes
import enum
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Result = enum.IntEnum("Result", ["CUDA_SUCCESS", "CUDA_ERROR_OUT_OF_MEMORY", "CUDA_ERROR_INVALID_VALUE"], start=0)
FINE, NO_MEMORY, WRONG = Result  # type: ignore[misc]
SYMBOL = "kernel"  # of every kernel, as kernels that were compiled in different processes may have the same
BYTES = 1 << 26  # of the virtual card
SUCCEED = (
    "cuInit", "cuCtxSetCurrent", "cuCtxSynchronize", "cuStreamSynchronize", "cuStreamDestroy", "cuEventRecord",
    "cuStreamWaitEvent", "cuEventSynchronize", "cuEventDestroy", "cuGraphExecDestroy", "cuGraphDestroy",
)  # fmt: skip


class VirtualDriver:
    """The driver's functions that the run time uses; `log` lists what was called, `alive` what is allocated."""

    CUresult = Result
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=SimpleNamespace(value=1))
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=SimpleNamespace(value=2))
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK=0)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=2)

    def __init__(self) -> None:
        self.log: list[str] = []
        self.alive: dict[int, Any] = {}
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
        return FINE, BYTES - sum(block.nbytes for block in self.alive.values()), BYTES

    def cuMemAlloc(self, count: int) -> tuple[Any, ...]:
        if count > self.cuMemGetInfo()[1]:
            return NO_MEMORY, None
        block = np.full(count + 256, 0xFF, np.uint8)  # float32 nan
        address = -(-block.ctypes.data // 256) * 256
        self.alive[address] = block
        return FINE, address

    def cuMemHostAlloc(self, count: int, flags: int) -> tuple[Any, ...]:
        if self.unlockable:
            return NO_MEMORY, None
        block = np.full(count, 0xFF, np.uint8)
        self.locked[block.ctypes.data] = block
        return FINE, block.ctypes.data

    def cuMemFreeHost(self, address: int) -> tuple[Any, ...]:
        return (FINE if self.locked.pop(address, None) is not None else WRONG,)

    def cuMemFree(self, address: int) -> tuple[Any, ...]:
        return (FINE if self.alive.pop(address, None) is not None else WRONG,)

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
        assert extra == 0 and len(sizes) == 6 and all(n >= 1 for n in sizes)
        values = tuple(_arguments(kernel, pointers))
        launch = (kernel, tuple(sizes[:3]), tuple(sizes[3:]), shared, values)
        if stream in self.recording:
            self.recording[stream].append(launch)
        else:
            self.log.append(f"launch {kernel.name}")
            _interpret(*launch)
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
            _interpret(*launch)
        return (FINE,)


def _arguments(kernel: Any, pointers: int) -> Any:
    """What a kernel reads at the addresses of its parameters."""
    place = 0

    def word(kind: Any) -> Any:
        nonlocal place
        address = ctypes.c_uint64.from_address(pointers + 8 * place).value
        place += 1
        return kind.from_address(address).value

    scalars = {"int64": ctypes.c_int64, "int32": ctypes.c_int32, "float32": ctypes.c_float}
    for kind in kernel.virtual_types:
        if not kind.endswith("[]"):
            value = word(scalars[kind])
            yield value if kind == "int64" else np.dtype(kind).type(value)
            continue
        none, nobody, size, item, address, shape, stride = (word(ctypes.c_int64) for _ in range(7))
        assert (none, nobody, item, shape, stride) == (0, 0, 4, size, 4)
        raw = (ctypes.c_uint8 * (4 * size)).from_address(address) if size else bytearray()
        yield np.frombuffer(raw, kind.removesuffix("[]"))


def _interpret(kernel: Any, grid: Any, block: Any, shared: int, values: Any) -> None:
    from numba import cuda

    cuda.jit(kernel.function)[grid, block, 0, shared](*values)


def install(capability: tuple[int, int] = (9, 0)) -> VirtualDriver:
    """Put a virtual driver and card in place of real ones, in this process."""
    import netdsl.backends.cuda.simt  # numba.cuda looks for the packages that are replaced here
    from netdsl.backends.cuda import device, jit

    fake = VirtualDriver()
    bindings = ModuleType("cuda.bindings")
    bindings.driver = fake  # type: ignore[attr-defined]
    sys.modules.setdefault("cuda", ModuleType("cuda"))
    sys.modules["cuda.bindings"] = bindings
    sys.modules.pop("netdsl.backends.cuda.driver", None)
    vars(netdsl.backends.cuda).pop("driver", None)
    device._opened = os.getpid(), device.Device("a virtual card", capability, 132, BYTES)

    def load(kernel: Any, kinds: Any, capability: Any) -> jit.Compiled:
        types = tuple("int32" if p in kernel.narrow else kinds[p] for p in kernel.parameters)
        facts = SimpleNamespace(name=kernel.name, function=kernel.build(), virtual_types=types)
        code = repr(kernel).encode()
        fake.kernels[code] = facts
        return jit.Compiled(SYMBOL, kernel.parameters, types, code)

    jit.load = load
    return fake
