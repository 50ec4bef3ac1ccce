"""The arrays that people hand to a network, and what is said when they do not fit."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from netdsl.errors import InputError
from netdsl.frozen import frozen
from netdsl.graph.ir import InputSpec
from netdsl.ops.base import Array
from netdsl.tensor import Shape


@frozen
class Port:
    """An input or output of a model. `shape` starts with the batch; None stands for a size that follows the data."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.name} {_bracketed(self.shape)}"


def _bracketed(shape: tuple[int | None, ...]) -> str:
    return f"[{', '.join(['N', *('?' if size is None else str(size) for size in shape[1:])])}]"


def open_shape(spec: InputSpec) -> tuple[int | None, ...]:
    """The shape of an input with its batch, None for what follows the data."""
    shape = spec.type.shape
    if not any(spec.free):
        return (None, *shape)
    return (None, shape[0], *(None if free else size for free, size in zip(spec.free, shape[1:], strict=True)))


def as_float32(x: Any, name: str) -> Array:
    """An array-like as an aligned C-contiguous float32 array, copied only where it must be."""
    array = _as_array(x, name)
    if array.dtype.kind not in "fiub":
        message = f"input {name} must hold real numbers, found {array.dtype} values"
        raise InputError(message, code="input-dtype", hint=_dtype_hint(x, array))
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite
        return np.require(array, np.float32, ["C_CONTIGUOUS", "ALIGNED"])


def _dtype_hint(x: Any, array: Array) -> str | None:
    if isinstance(x, (str, os.PathLike)):
        return "read the picture first: netdsl.images.load_image(path, net.graph.inputs[0])"
    return "take its real part, or its absolute value, first" if array.dtype.kind == "c" else None


def _as_array(x: Any, name: str) -> Array:
    kind = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
    try:
        if isinstance(x, np.ndarray):
            return np.asarray(x)
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        return np.asarray(x)
    except (TypeError, ValueError, BufferError, RuntimeError, OverflowError) as error:
        reason = str(error).strip().splitlines()
        message = f"input {name} is no array that can be read: {kind}" + (f" ({reason[0]})" if reason else "")
        raise InputError(message, code="input-array", hint=_array_hint(x, str(error).lower())) from None


def _array_hint(x: Any, reason: str) -> str | None:
    if hasattr(x, "__cuda_array_interface__") or "cuda" in reason:
        return "copy it to the host first, as with x.cpu() or cupy.asnumpy(x)"
    if "grad" in reason:
        return "hand over x.detach()"
    return "make it float32 first, as with x.float()" if "dtype" in reason else None


def check_shape(found: Shape, spec: InputSpec) -> None:
    """Raise InputError unless `found` is [N, *shape]."""
    expected = open_shape(spec)
    if len(found) == len(expected) and all(e in (None, f) for e, f in zip(expected, found, strict=True)):
        if 0 in found[1:]:
            raise InputError(f"input {spec.name} is empty: {list(found)}", code="input-shape")
        return
    message = f"input {spec.name} must be {_bracketed(expected)}, found {list(found)}"
    raise InputError(message, code="input-shape", hint=_shape_hint(found, expected))


def _shape_hint(found: Shape, expected: tuple[int | None, ...]) -> str | None:
    """The way out of the usual slips: no batch dimension, no channel dimension, channels last."""

    def fits(shape: Shape) -> bool:
        return len(shape) == len(expected) and all(e in (None, f) for e, f in zip(expected, shape, strict=True))

    usual = [
        ("add the batch dimension: x[None]", (1, *found)),
        ("add the channel dimension: x[:, None]", (*found[:1], 1, *found[1:])),
        ("add the batch and channel dimensions: x[None, None]", (1, 1, *found)),
    ]
    if len(found) == 4:
        n, h, w, c = found
        usual.append(("channels come first: x.transpose(0, 3, 1, 2)", (n, c, h, w)))
    if len(found) == 3:
        h, w, c = found
        usual.append(("channels come first, after the batch: x.transpose(2, 0, 1)[None]", (1, c, h, w)))
    return next((hint for hint, shape in usual if fits(shape)), None)
