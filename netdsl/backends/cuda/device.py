"""The GPU: finding it, memory, streams, graphs and launches.

No other module touches the run time of numba.cuda or the driver (kernel modules see the language of kernels through
`simt`). Importing this imports no CUDA package.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda.steps import Geometry, Kernel
from netdsl.errors import DeviceError

SMALLEST_CAPABILITY = (7, 5)  # the oldest that CUDA 13 compiles for
INSTALL = "pip install 'netdsl[cuda13]' (or 'netdsl[cuda12]' for a driver older than 580)"
PLAIN_SHARED_BYTES = 48 * 1024  # dynamic shared memory that a kernel may have without asking

_opened: tuple[int, Device] | None = None  # the process that opened the device: a fork cannot use it


@dataclass(frozen=True)
class Device:
    """A usable GPU. name: as its maker calls it; memory_bytes: all of it."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    simulated: bool = False

    def __str__(self) -> str:
        if self.simulated:
            return self.name
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, {self.memory_bytes / 2**30:.0f} GiB)"


def simulated() -> bool:
    """Whether numba.cuda's simulator stands in for a GPU (NUMBA_ENABLE_CUDASIM=1): slow, for tests of small shapes."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def find() -> Device:
    """The GPU that networks run on: the first that the driver shows. Raises DeviceError: why there is none."""
    global _opened
    if _opened is not None:
        process, device = _opened
        if process == os.getpid() or device.simulated:
            return device
        hint = "start processes by spawn instead of fork: multiprocessing.get_context('spawn')"
        raise DeviceError("a GPU opened before a fork cannot be used after it", code="cuda-fork", hint=hint)
    device = _simulator() if simulated() else _first_device()
    _opened = os.getpid(), device
    return device


def usable() -> Device | None:
    """The GPU, or None when there is none that networks can run on; a simulator does not count."""
    if simulated():
        return None
    with suppress(DeviceError):
        return find()
    return None


def _simulator() -> Device:
    return Device("the simulator of numba.cuda", (9, 0), 132, 2**30, simulated=True)


def _first_device() -> Device:
    _need_packages()
    _need_driver()
    from numba import cuda

    try:
        found = cuda.get_current_device()
        context = cuda.current_context()
        memory = context.get_memory_info()
    except Exception as error:  # whatever the packages raise, and they change it, the user is told
        raise _failed("the GPU cannot be opened", error) from error
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    capability = tuple(found.compute_capability)
    if capability < SMALLEST_CAPABILITY:
        need = ".".join(map(str, SMALLEST_CAPABILITY))
        message = f"{name} has compute capability {capability[0]}.{capability[1]}, and {need} is needed"
        raise DeviceError(message, code="cuda-old-device", hint='use device="cpu"')
    return Device(name, (capability[0], capability[1]), int(found.MULTIPROCESSOR_COUNT), int(memory.total))


def _need_packages() -> None:
    missing = [name for name in ("numba_cuda", "cuda") if importlib.util.find_spec(name) is None]
    if missing:
        message = "the packages for NVIDIA GPUs are not installed"
        raise DeviceError(message, code="cuda-packages", hint=f'{INSTALL}, or use device="cpu"')


def _need_driver() -> None:
    """Ask the driver itself: its error numbers tell apart what numba.cuda does not."""
    try:
        from cuda.bindings import driver

        (status,) = driver.cuInit(0)
    except Exception as error:  # a library that is not there is reported in several ways
        message = f"no NVIDIA driver was found ({_first_line(error)})"
        hint = 'install the driver of your GPU (nvidia-smi shows it), or use device="cpu"'
        raise DeviceError(message, code="cuda-no-driver", hint=hint) from None
    _need_success(driver, status)
    _, version = driver.cuDriverGetVersion()
    _need_version(int(version), int(driver.CUDA_VERSION))
    status, count = driver.cuDeviceGetCount()
    _need_success(driver, status)
    if not count:
        raise _no_device()


def _need_success(driver: Any, status: Any) -> None:
    """Raise the DeviceError of a driver call that failed."""
    codes = driver.CUresult
    if status == codes.CUDA_SUCCESS:
        return
    if status == codes.CUDA_ERROR_NO_DEVICE:
        raise _no_device()
    too_old = (codes.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, codes.CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)
    if status in too_old:
        message = "the NVIDIA driver does not fit the rest of the system"
        hint = 'update the driver and restart the machine, or use device="cpu"'
        raise DeviceError(message, code="cuda-old-driver", hint=hint)
    raise DeviceError(f"the NVIDIA driver refuses: {status.name}", code="cuda-driver", hint="see what nvidia-smi says")


def _need_version(version: int, wanted: int) -> None:
    """Raise DeviceError when a driver supports only an earlier major version of CUDA than the packages are made for.

    Versions are 1000 major + 10 minor, as the driver gives them.
    """
    if version // 1000 < wanted // 1000:
        supports, needs = f"{version // 1000}.{version % 1000 // 10}", wanted // 1000
        message = f"the NVIDIA driver supports CUDA {supports} and the installed packages need CUDA {needs}"
        older = version // 1000
        hint = f"update the driver, or: pip install 'netdsl[cuda{older}]'" if older == 12 else "update the driver"
        raise DeviceError(message, code="cuda-old-driver", hint=hint)


def _no_device() -> DeviceError:
    hint = 'see what nvidia-smi and CUDA_VISIBLE_DEVICES say, or use device="cpu"'
    return DeviceError("the NVIDIA driver shows no GPU", code="cuda-no-device", hint=hint)


def _failed(what: str, error: Exception) -> DeviceError:
    return DeviceError(f"{what}: {_first_line(error)}", code="cuda-failed", hint='use device="cpu"')


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turns the driver's lack of memory into a DeviceError that says for what."""
    try:
        yield
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error).upper().replace(" ", "_"):
            raise
        hint = 'use smaller batches, free memory of other processes (nvidia-smi shows them), or use device="cpu"'
        raise DeviceError(f"not enough GPU memory for {what}", code="cuda-memory", hint=hint) from None


def enter() -> None:
    """Make the GPU current in this thread. Raises DeviceError after a fork."""
    if not find().simulated:
        from numba import cuda

        cuda.current_context()


def settle() -> None:
    """Wait until everything sent to the GPU has arrived: copies are seen by every stream from then on."""
    from numba import cuda

    cuda.synchronize()


def free_bytes() -> int:
    """Memory of the device that is free now."""
    if find().simulated:
        return find().memory_bytes
    from numba import cuda

    return int(cuda.current_context().get_memory_info().free)


def empty(count: int, dtype: Any = np.float32) -> Any:
    """A flat array on the device, its values undefined."""
    from numba import cuda

    with memory_errors(f"{count * np.dtype(dtype).itemsize:,} bytes"):
        return cuda.device_array(max(1, count), dtype)


def upload(values: NDArray[Any]) -> Any:
    """A copy of a host array on the device, flat."""
    from numba import cuda

    with memory_errors(f"{values.nbytes:,} bytes of weights"):
        return cuda.to_device(np.ascontiguousarray(values).reshape(-1))


class Stream:
    """A queue of launches and copies of its own, independent of the default stream."""

    def __init__(self) -> None:
        from numba import cuda

        self._handle: Any = None
        if find().simulated:
            self.queue: Any = cuda.stream()
            return
        from cuda.bindings import driver

        enter()
        status, self._handle = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
        _need_success(driver, status)
        self.queue = cuda.external_stream(int(self._handle))

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            with suppress(Exception):  # the driver may be gone already when the process ends
                from cuda.bindings import driver

                driver.cuStreamDestroy(self._handle)

    @property
    def handle(self) -> int:
        """The driver's number of the stream (0 in the simulator)."""
        return 0 if self._handle is None else int(self._handle)

    def send(self, values: NDArray[Any], array: Any) -> None:
        """Copy a host array to the device, all of a flat array's beginning."""
        if values.size:
            array[: values.size].copy_to_device(values.reshape(-1), stream=self.queue)

    def fetch(self, array: Any, values: NDArray[Any]) -> None:
        """Copy a flat array's beginning to the host; complete after `wait`."""
        if values.size:
            array[: values.size].copy_to_host(values.reshape(-1), stream=self.queue)

    def after_default(self) -> None:
        """Let what follows start after all that is on the default stream now, without holding up the host."""
        if find().simulated:
            return
        from numba import cuda

        event = cuda.event(timing=False)
        event.record(cuda.legacy_default_stream())
        event.wait(self.queue)

    def wait(self) -> None:
        """Wait until everything asked for is done."""
        self.queue.synchronize()


@cache
def compiled(kernel: Kernel) -> Any:
    """A kernel as numba.cuda's dispatcher, which compiles for the types it meets."""
    from numba import cuda

    function = kernel.build()
    bounds = getattr(function, "launch_bounds", None)
    return cuda.jit(function) if bounds is None or simulated() else cuda.jit(launch_bounds=bounds)(function)


def prepare(kernel: Kernel, signature: Sequence[str], geometry: Geometry) -> Callable[..., None]:
    """Compile a kernel for its types; returns launch(stream, *arguments)."""
    dispatcher = compiled(kernel)
    if not find().simulated:
        types = tuple(_numba_type(name) for name in signature)
        with memory_errors(f"kernel {kernel.name}"):
            dispatcher.compile(types)
            if geometry.shared_bytes > PLAIN_SHARED_BYTES:
                _allow_shared(dispatcher, types, geometry.shared_bytes)

    def launch(stream: Stream, *arguments: Any) -> None:
        dispatcher[geometry.grid, geometry.block, stream.queue, geometry.shared_bytes](*arguments)

    return launch


def _numba_type(name: str) -> Any:
    from numba import types

    scalar = getattr(types, name.removesuffix("[]"))
    return scalar[::1] if name.endswith("[]") else scalar


def _allow_shared(dispatcher: Any, types: tuple[Any, ...], count: int) -> None:
    """Let a kernel have more than 48 KiB of dynamic shared memory, which numba.cuda has no word for."""
    from cuda.bindings import driver
    from numba import cuda

    function = dispatcher.overloads[types]._codelibrary.get_cufunc()
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (status,) = driver.cuKernelSetAttribute(attribute, count, function.handle, cuda.get_current_device().id)
    _need_success(driver, status)


class LaunchGraph:
    """Launches recorded once and started together: the cost of one launch instead of one for each step."""

    def __init__(self, stream: Stream, record: Callable[[], None]) -> None:
        """Record what `record` launches on the stream; its kernels must have run before, so that they are loaded."""
        from cuda.bindings import driver
        from numba import cuda

        self._driver, self._graph, self._launchable = driver, None, None
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED  # other threads and finalizers go on
        (status,) = driver.cuStreamBeginCapture(stream.handle, mode)
        _need_success(driver, status)
        try:
            with cuda.defer_cleanup():
                record()
        finally:
            status, self._graph = driver.cuStreamEndCapture(stream.handle)
        _need_success(driver, status)
        status, self._launchable = driver.cuGraphInstantiate(self._graph, 0)
        _need_success(driver, status)

    def launch(self, stream: Stream) -> None:
        (status,) = self._driver.cuGraphLaunch(self._launchable, stream.handle)
        _need_success(self._driver, status)

    def __del__(self) -> None:
        with suppress(Exception):  # the driver may be gone already when the process ends
            if self._launchable is not None:
                self._driver.cuGraphExecDestroy(self._launchable)
            if self._graph is not None:
                self._driver.cuGraphDestroy(self._graph)


def seconds(stream: Stream, graph: LaunchGraph) -> float:
    """How long a graph's launches take on the device, by its own clock."""
    from numba import cuda

    start, end = cuda.event(), cuda.event()
    start.record(stream.queue)
    graph.launch(stream)
    end.record(stream.queue)
    end.synchronize()
    return float(cuda.event_elapsed_time(start, end)) * 1e-3


def address(array: Any) -> int:
    """The place of an array's first value in device memory."""
    return int(array.__cuda_array_interface__["data"][0])


def adopted(x: Any) -> Any:
    """Any library's array on this GPU as numba.cuda's, without a copy.

    What its library has queued is waited for: by DLPack's rule on the default stream, which `Stream.after_default`
    waits for, or on the stream that the CUDA array interface names.
    """
    from numba import cuda

    find()
    if not hasattr(x, "__cuda_array_interface__"):
        from cuda.core.utils import StridedMemoryView

        x = StridedMemoryView.from_dlpack(x, stream_ptr=_DEFAULT_STREAM)
        x = _Described(x)
    return cuda.as_cuda_array(x)


_DEFAULT_STREAM = 1  # what DLPack and the CUDA array interface call the legacy default stream


class _Described:
    """A strided view of device memory under the CUDA array interface."""

    def __init__(self, view: Any) -> None:
        self._view = view  # keeps the memory alive
        size = view.dtype.itemsize
        self.__cuda_array_interface__ = {
            "shape": tuple(view.shape), "typestr": view.dtype.str, "data": (int(view.ptr), False), "version": 3,
            "strides": None if view.strides is None else tuple(size * s for s in view.strides),
        }  # fmt: skip


def dlpack(tensor: Any, **options: Any) -> Any:
    """The DLPack capsule of something with the CUDA array interface."""
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_cuda_array_interface(tensor, stream_ptr=-1)  # nothing is left to wait for
    return view.__dlpack__(**options)
