"""Arrays on the GPU that cross the border of a network: the caller's taken as they lie, results handed out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from netdsl.backends.cuda import device
from netdsl.errors import InputError
from netdsl.tensor import Shape

_DLPACK_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged (DLPack, DLDeviceType)


class DeviceTensor:
    """A float32 C-contiguous array [N, ...] on the GPU.

    Libraries take it without a copy through `__cuda_array_interface__` (version 3) and DLPack:
    `torch.from_dlpack(y)`, `cupy.asarray(y)`. `y.numpy()` copies it to the host. What it holds is complete.
    """

    def __init__(self, flat: Any, shape: Shape, owner: Any = None) -> None:
        self.flat, self.shape, self.dtype = flat, shape, np.dtype(np.float32)
        self._owner = owner  # of the memory, kept alive

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        address = self.flat.address if 0 not in self.shape else 0
        return {"shape": self.shape, "typestr": "<f4", "data": (address, False), "strides": None, "version": 3}

    def __dlpack__(self, **options: Any) -> Any:
        from cuda.core.utils import StridedMemoryView

        view = StridedMemoryView.from_cuda_array_interface(self, stream_ptr=-1)  # nothing is left to wait for
        return view.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA[0], 0

    def numpy(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A copy on the host."""
        out = np.empty(self.shape, np.float32)
        if out.size:
            stream = device.runtime().Stream()
            stream.fetch(self.flat, out.reshape(-1))
            stream.wait()
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("an array on the GPU cannot become a NumPy array without a copy")
        return self.numpy().astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"<netdsl.DeviceTensor float32 {list(self.shape)} on the GPU>"


def on_device(x: Any) -> bool:
    """Whether an array lies on a GPU."""
    if hasattr(x, "__cuda_array_interface__"):
        return True
    return hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) in _DLPACK_CUDA


def adopt(x: Any, name: str) -> DeviceTensor:
    """An array on the GPU as it lies there; `name` is the input's. Raises InputError.

    What its library has queued is waited for: by DLPack's rule on the default stream, which every call waits for, or on
    the stream that the CUDA array interface names.
    """
    if isinstance(x, DeviceTensor):
        return x
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    try:
        facts = _described(x)
    except Exception as error:  # each library has its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        message = f"input {name} is no array that can be read: {kind} ({reason[0]})"
        raise InputError(message, code="input-array") from None
    shape, dtype = tuple(map(int, facts["shape"])), np.dtype(facts["typestr"])
    if dtype != np.float32 or not _contiguous(shape, facts.get("strides")):
        message = f"input {name} on the GPU must be contiguous float32, found {dtype} with strides {facts['strides']}"
        raise InputError(message, code="input-dtype", hint="make it so first, as with x.float().contiguous()")
    from netdsl.backends.cuda.driver import Array

    return DeviceTensor(Array(int(facts["data"][0] or 0), math.prod(shape), dtype, x), shape)


def _described(x: Any) -> dict[str, Any]:
    """An array of the GPU by the rules of the CUDA array interface; strides in bytes, None for C order."""
    from netdsl.backends.cuda import driver

    if hasattr(x, "__dlpack__"):
        from cuda.core.utils import StridedMemoryView

        view = StridedMemoryView.from_dlpack(x, stream_ptr=driver.DEFAULT_STREAM)
        strides = None if view.strides is None else tuple(view.dtype.itemsize * s for s in view.strides)
        return {"shape": view.shape, "typestr": view.dtype.str, "data": (view.ptr, False), "strides": strides}
    facts = dict(x.__cuda_array_interface__)
    facts.setdefault("strides", None)
    if facts.get("stream"):
        driver.Stream.wait_for(facts["stream"])
    return facts


def _contiguous(shape: Shape, strides: tuple[int, ...] | None) -> bool:
    """Whether float32 values of these strides in bytes lie in C order without gaps."""
    if strides is None or 0 in shape:
        return True
    expected = 4
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
