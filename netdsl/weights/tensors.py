"""Named tensors of one weights file, mapped into memory; each is read when it is asked for.

Everything a file says of itself (shapes, offsets, strides, sizes) is checked here against the bytes that exist before
an array is made of it, so a file that lies costs an error, not memory.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from netdsl.errors import WeightsError
from netdsl.frozen import frozen
from netdsl.ops.base import Array
from netdsl.tensor import MAX_ELEMENTS, Shape

MAX_RANK = 16  # chosen: far above any layer's weight, far below NumPy's own limit

# How each element type lies in a file, always little-endian. bfloat16 and float8 have no NumPy type: as their bits.
STORED_AS = {
    "float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8",
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "|i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "|u1", "bool": "|b1", "float8": "|u1",
}  # fmt: skip
COUNTERS = "num_batches_tracked"  # batch normalization's step count, which inference does not use
FLOATS = ("float32", "float16", "bfloat16", "float64")  # what can become a float32 weight


def shown(name: str, width: int = 80) -> str:
    """A name out of a file, safe to print: cut, and without control characters."""
    text = "".join(c if c.isprintable() else "?" for c in name[:width])
    return text + "…" if len(name) > width else text


def shape_text(shape: Shape) -> str:
    """A shape as people read it: 64x3x7x7; "scalar" for none."""
    return "x".join(map(str, shape)) or "scalar"


def as_float32(array: Array, dtype: str) -> Array:
    """float32, C-contiguous and aligned; a view where the array is so already. bfloat16 comes as its bits."""
    if dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite
        return np.require(array, np.float32, ["C", "A"])


@frozen
class Entry:
    """One tensor of a file: what it claims to be (already checked), and how to get at it."""

    dtype: str
    shape: Shape
    read: Callable[[], Array]


class Tensors(Mapping[str, Array]):
    """The tensors of one file by name.

    Floating-point tensors come as float32, C-contiguous (zero-copy and read-only where the file holds them so); others
    come in the type the file holds. A mapped file must not be changed in place while arrays of it are in use.
    """

    def __init__(self, path: str, entries: Mapping[str, Entry]) -> None:
        self.path, self.entries = path, dict(entries)

    def __getitem__(self, name: str) -> Array:
        entry = self.entries[name]
        array = entry.read()
        return as_float32(array, entry.dtype) if entry.dtype in FLOATS else array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __repr__(self) -> str:
        return f"<{len(self)} tensors of {self.path}>"


class WeightsFile:
    """A regular file mapped read-only: `data` is its bytes."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device would block or never end
                raise self.fault("weights-format", "not a regular file")
            with open(path, "rb") as handle:
                self.size = os.fstat(handle.fileno()).st_size
                if not self.size:
                    raise self.fault("weights-truncated", "the file is empty")
                self.data = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise self.fault("weights-missing-file", "there is no such file") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or a size beyond the address space
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise self.fault("weights-unreadable", f"cannot be read: {reason}") from None

    def fault(self, code: str, message: str, hint: str | None = None) -> WeightsError:
        """An error about this file."""
        return WeightsError(message, code=code, path=self.path, hint=hint)

    def shape(self, name: str, sizes: Any) -> Shape:
        """`sizes` as a shape, if it is a sequence of sensible whole numbers."""
        if not isinstance(sizes, (list, tuple)) or len(sizes) > MAX_RANK:
            raise self.fault("weights-format", f"{shown(name)}: its shape is no list of at most {MAX_RANK} numbers")
        if any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in sizes):
            raise self.fault("weights-format", f"{shown(name)}: its shape holds something else than whole numbers")
        if any(s > MAX_ELEMENTS for s in sizes) or math.prod(max(s, 1) for s in sizes) > MAX_ELEMENTS:
            raise self.fault("weights-too-large", f"{shown(name)}: more than {MAX_ELEMENTS} elements are claimed")
        return tuple(sizes)

    def entry(self, name: str, dtype: str, shape: Shape, offset: int, strides: Shape | None = None) -> Entry:
        """The tensor at a byte offset. `strides` (in elements) default to C order; none may lead out of the file."""
        kind = np.dtype(STORED_AS[dtype])
        if 0 in shape:
            return Entry(dtype, shape, lambda: np.empty(shape, kind))
        steps = c_strides(shape) if strides is None else strides
        last = sum((s - 1) * step for s, step in zip(shape, steps, strict=True))
        if offset < 0 or offset + (last + 1) * kind.itemsize > self.size:
            raise self.fault("weights-truncated", f"{shown(name)}: its values would lie beyond the end of the file")
        bytes_steps = tuple(step * kind.itemsize for step in steps)
        return Entry(dtype, shape, lambda: np.ndarray(shape, kind, self.data, offset, bytes_steps))


def c_strides(shape: Shape) -> Shape:
    """Elements between neighbours along each axis, the last axis fastest."""
    steps = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        steps[i] = steps[i + 1] * shape[i + 1]
    return tuple(steps)
