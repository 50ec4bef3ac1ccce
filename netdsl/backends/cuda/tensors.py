"""Arrays on the GPU that cross the border of a network: the caller's taken as they lie, results handed out."""

from __future__ import annotations

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
        address = device.address(self.flat) if 0 not in self.shape else 0
        return {"shape": self.shape, "typestr": "<f4", "data": (address, False), "strides": None, "version": 3}

    def __dlpack__(self, **options: Any) -> Any:
        return device.dlpack(self, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _DLPACK_CUDA[0], 0

    def numpy(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """A copy on the host."""
        out = np.empty(self.shape, np.float32)
        if out.size:
            stream = device.Stream()
            stream.fetch(self.flat, out)
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
    """An array on the GPU as it lies there; `name` is the input's. Raises InputError."""
    if isinstance(x, DeviceTensor):
        return x
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    try:
        array = device.adopted(x)
    except Exception as error:  # each library has its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"input {name} is no array that can be read: {kind} ({reason[0]})", code="input-array"
        ) from None
    if array.dtype != np.float32 or not array.is_c_contiguous():
        order = "" if array.is_c_contiguous() else ", not contiguous"
        message = f"input {name} on the GPU must be contiguous float32, found {array.dtype}{order}"
        raise InputError(message, code="input-dtype", hint="make it so first, as with x.float().contiguous()")
    return DeviceTensor(array.reshape(-1), tuple(map(int, array.shape)), owner=x)
