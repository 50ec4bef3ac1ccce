"""The run time on a GPU, over the CUDA driver's own functions: memory, streams, launches, graphs of launches.

`simulator` has the same words under numba.cuda's simulator.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from numpy.typing import NDArray

from netdsl.backends.cuda import jit
from netdsl.backends.cuda.steps import Geometry, Kernel
from netdsl.errors import DeviceError

F32 = NDArray[np.float32]

DEFAULT_STREAM = 1  # what DLPack and the CUDA array interface call the legacy default stream
ARRAY_WORDS = 7  # parameters that numba.cuda makes of a flat array: two unused, size, item size, address, shape, stride

_thread = threading.local()
_process = os.getpid()  # a fork has no part in what its parent has on the GPU


def call(answer: tuple[Any, ...], what: str = "a call of the driver") -> Any:
    """The result of a driver's function, or the DeviceError that its status means."""
    status, *results = answer
    if status == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        hint = 'use smaller batches, free memory of other processes (nvidia-smi shows them), or use device="cpu"'
        raise DeviceError(f"not enough GPU memory for {what}", code="cuda-memory", hint=hint)
    if status != cu.CUresult.CUDA_SUCCESS:
        message = f"the GPU failed at {what}: {cu.CUresult(status).name}"
        raise DeviceError(message, code="cuda-failed", hint='see what nvidia-smi says, or use device="cpu"')
    return results[0] if results else None


@cache
def _context() -> Any:
    """The context that all libraries of a process share."""
    call(cu.cuInit(0))
    return call(cu.cuDevicePrimaryCtxRetain(0), "the GPU's context")


def enter() -> None:
    """Make the GPU current in this thread."""
    if not getattr(_thread, "entered", False):
        call(cu.cuCtxSetCurrent(_context()))
        _thread.entered = True


def free_bytes() -> int:
    """Memory of the GPU that is free now."""
    enter()
    status, free, _ = cu.cuMemGetInfo()
    call((status,))
    return int(free)


class Memory:
    """Bytes on the GPU, given back when nobody refers to them any more."""

    def __init__(self, count: int) -> None:
        self.address = 0
        enter()
        self.address = int(call(cu.cuMemAlloc(max(16, count)), f"{count:,} bytes"))

    def __del__(self) -> None:
        with suppress(Exception):  # the driver may be gone already when the process ends
            if self.address and os.getpid() == _process:
                enter()
                cu.cuMemFree(self.address)


@dataclass(frozen=True, eq=False)
class Array:
    """A flat array on the GPU. owner: what keeps its memory."""

    address: int
    size: int
    dtype: np.dtype[Any]
    owner: Any

    def __getitem__(self, part: slice) -> Array:
        start, stop, _ = part.indices(self.size)
        return Array(self.address + start * self.dtype.itemsize, max(0, stop - start), self.dtype, self.owner)

    def words(self) -> list[int]:
        """The parameters that a kernel takes for it."""
        return [0, 0, self.size, self.dtype.itemsize, self.address, self.size, self.dtype.itemsize]


def empty(count: int, dtype: Any = np.float32) -> Array:
    """A flat array, its values undefined."""
    memory = Memory(count * np.dtype(dtype).itemsize)
    return Array(memory.address, count, np.dtype(dtype), memory)


def upload(values: NDArray[Any]) -> Array:
    """A copy of a host array, flat, complete when this returns."""
    flat = np.ascontiguousarray(values).reshape(-1)
    array = empty(flat.size, flat.dtype)
    if flat.size:
        call(cu.cuMemcpyHtoD(array.address, flat.ctypes.data, flat.nbytes), "sending weights")
        call(cu.cuCtxSynchronize())  # the copy may go on after the call has returned
    return array


class PageLocked:
    """float32 values of the host that the system leaves where they are, so that the GPU copies them by itself."""

    def __init__(self, count: int) -> None:
        self.address = 0
        enter()
        self.address = int(call(cu.cuMemHostAlloc(4 * count, 0), "page-locked memory"))
        self.__array_interface__ = {"shape": (count,), "typestr": "<f4", "data": (self.address, False), "version": 3}

    def __del__(self) -> None:
        with suppress(Exception):  # the driver may be gone already when the process ends
            if self.address and os.getpid() == _process:
                enter()
                cu.cuMemFreeHost(self.address)


def page_locked(count: int) -> F32 | None:
    """A flat array of the host in page-locked memory, or None where the system gives none."""
    with suppress(DeviceError):
        return np.asarray(PageLocked(count))
    return None


class Mark:
    """A place in a stream's queue: the host can wait until it is passed, and ask how long from one to another."""

    def __init__(self, stream: Stream, timed: bool) -> None:
        self._event: Any = None
        flags = 0 if timed else cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
        self._event = call(cu.cuEventCreate(flags))
        call(cu.cuEventRecord(self._event, stream.handle))

    def __del__(self) -> None:
        with suppress(Exception):  # the driver may be gone already when the process ends
            if self._event is not None and os.getpid() == _process:
                enter()
                cu.cuEventDestroy(self._event)

    def wait(self) -> None:
        """Wait until everything queued before is done."""
        call(cu.cuEventSynchronize(self._event), "running the network")

    def until(self, later: Mark) -> float:
        """Seconds from here to a later mark, by the GPU's own clock; both are timed."""
        later.wait()
        return float(call(cu.cuEventElapsedTime(self._event, later._event))) * 1e-3


class Stream:
    """A queue of launches and copies of its own, independent of the default stream."""

    def __init__(self) -> None:
        self.handle = 0
        enter()
        flag = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        self.handle = int(call(cu.cuStreamCreate(flag), "a stream"))

    def __del__(self) -> None:
        with suppress(Exception):  # the driver may be gone already when the process ends
            if self.handle and os.getpid() == _process:
                enter()
                cu.cuStreamDestroy(self.handle)

    def send(self, values: NDArray[Any], array: Array) -> None:
        """Queue the copy of a flat host array to the beginning of one on the GPU."""
        if values.size:
            call(cu.cuMemcpyHtoDAsync(array.address, values.ctypes.data, values.nbytes, self.handle), "an input")

    def fetch(self, array: Array, values: NDArray[Any]) -> None:
        """Queue the copy of an array's beginning to a flat one of the host; complete after `wait`."""
        if values.size:
            call(cu.cuMemcpyDtoHAsync(values.ctypes.data, array.address, values.nbytes, self.handle), "an output")

    def after(self, other: int = DEFAULT_STREAM) -> None:
        """Let what follows start after all that is on another stream now, without holding up the host."""
        event = call(cu.cuEventCreate(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value))
        call(cu.cuEventRecord(event, other))
        call(cu.cuStreamWaitEvent(self.handle, event, 0))
        call(cu.cuEventDestroy(event))  # the driver keeps it as long as somebody waits for it

    def mark(self, timed: bool = False) -> Mark:
        """This place in the queue."""
        return Mark(self, timed)

    @staticmethod
    def wait_for(handle: int) -> None:
        """Wait until everything on another library's stream is done."""
        enter()
        call(cu.cuStreamSynchronize(handle), "waiting for another stream")

    def wait(self) -> None:
        """Wait until everything asked for is done."""
        call(cu.cuStreamSynchronize(self.handle), "running the network")


_functions: dict[jit.Compiled, tuple[Any, Any]] = {}  # by code: symbols are unique only where they were compiled
_lock = threading.Lock()


def _function(compiled: jit.Compiled) -> Any:
    """The driver's function of a kernel's machine code, loaded once in a process."""
    with _lock:
        if compiled not in _functions:
            enter()
            module = call(cu.cuModuleLoadData(compiled.code), "loading a kernel")
            function = call(cu.cuModuleGetFunction(module, compiled.symbol.encode()), "loading a kernel")
            # The driver loads code when it is first asked about; while launches are recorded it would be too late.
            most = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK
            call(cu.cuFuncGetAttribute(most, function), "loading a kernel")
            _functions[compiled] = module, function
        return _functions[compiled][1]


class Launch:
    """One launch of a kernel with its arguments packed: what is the same in every call is done once.

    ports: names of parameters whose arrays change from call to call. Those calls must not overlap in time.
    """

    def __init__(
        self, kernel: Kernel, kinds: Mapping[str, str], geometry: Geometry, values: Mapping[str, Any],
        capability: tuple[int, int],
    ) -> None:  # fmt: skip
        compiled = jit.load(kernel, kinds, capability)
        self._function, self._geometry = _function(compiled), geometry
        self._words, self._places = packed(compiled.parameters, compiled.types, values)
        self._pointers = self._words.ctypes.data + 8 * np.arange(len(self._words), dtype=np.uint64)
        self._kept = dict(values)  # arrays stay as long as the launch

    def __call__(self, stream: Stream, ports: Mapping[str, Array] | None = None) -> None:
        """Queue the launch; `ports` gives arrays of this call by parameter."""
        for name, array in (ports or {}).items():
            at = self._places[name]
            self._words[at : at + ARRAY_WORDS] = array.words()
        grid, block = self._geometry.grid, self._geometry.block
        pointers = self._pointers.ctypes.data
        call(cu.cuLaunchKernel(self._function, *grid, *block, 0, stream.handle, pointers, 0), "a launch")


def packed(
    parameters: Sequence[str], types: Sequence[str], values: Mapping[str, Any]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Arguments as a kernel takes them, each in a word of 8 bytes of its own, and each parameter's first word.

    An array that `values` lacks takes its room and is filled in at each launch.
    """
    words: list[int] = []
    places = {}
    for name, kind in zip(parameters, types, strict=True):
        places[name] = len(words)
        if kind.endswith("[]"):
            words += values[name].words() if name in values else [0] * ARRAY_WORDS
        elif kind == "float32":
            words.append(int(np.float32(values[name]).view(np.uint32)))
        else:
            words.append(int(np.dtype(kind).type(values[name])))
    return np.array(words, np.int64), places


class LaunchGraph:
    """Launches recorded once and started together: the cost of one launch instead of one for each step."""

    def __init__(self, stream: Stream, record: Callable[[], None]) -> None:
        """Record what `record` launches on the stream."""
        self._graph: Any = None
        self._ready: Any = None
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED  # other threads and finalizers go on
        call(cu.cuStreamBeginCapture(stream.handle, mode), "recording")
        try:
            record()
        finally:
            answer = cu.cuStreamEndCapture(stream.handle)  # also after an error: the stream is to be used again
        self._graph = call(answer, "recording")
        self._ready = call(cu.cuGraphInstantiate(self._graph, 0), "recording")

    def launch(self, stream: Stream) -> None:
        call(cu.cuGraphLaunch(self._ready, stream.handle), "running the network")

    def __del__(self) -> None:
        with suppress(Exception):  # the driver may be gone already when the process ends
            if self._ready is not None and os.getpid() == _process:
                enter()
                cu.cuGraphExecDestroy(self._ready)
                cu.cuGraphDestroy(self._graph)


def seconds(stream: Stream, graph: LaunchGraph) -> float:
    """How long a graph's launches take, by the GPU's own clock."""
    start = stream.mark(timed=True)
    graph.launch(stream)
    return start.until(stream.mark(timed=True))
