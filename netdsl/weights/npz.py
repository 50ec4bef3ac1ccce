"""NumPy's .npz archives. Arrays of Python objects (pickles) are refused; nothing is inflated before it is asked for."""

from __future__ import annotations

import io
import math
import tokenize

import numpy as np

from netdsl.ops.base import Array
from netdsl.tensor import Shape
from netdsl.weights import archive
from netdsl.weights.archive import Member
from netdsl.weights.tensors import STORED_AS, Entry, WeightsFile, shown

HEAD = 16 << 10  # bytes; NumPy itself refuses headers beyond 10,000
KINDS = {
    np.dtype(word).newbyteorder("="): name for name, word in STORED_AS.items() if name not in ("bfloat16", "float8")
}


def read(file: WeightsFile, members: dict[str, Member]) -> dict[str, Entry]:
    """Every array of the archive; compressed ones are inflated when they are read. Raises WeightsError."""
    archive.check_inflated(file, sum(m.size for m in members.values()))
    entries: dict[str, Entry] = {}
    for name, member in members.items():
        if not name.endswith(".npy"):
            raise file.fault("weights-format", f"member {shown(name)} of the archive is no .npy array")
        entries[name.removesuffix(".npy")] = _entry(file, member)
    return entries


def _entry(file: WeightsFile, member: Member) -> Entry:
    shape, fortran, dtype, start = _header(file, member)
    name = shown(member.name)
    if dtype.hasobject:
        raise file.fault("weights-unsafe", f"{name} holds Python objects, which are never read")
    kind = KINDS.get(dtype.newbyteorder("="))
    if kind is None:
        raise file.fault("weights-format", f"{name}: its element type {shown(str(dtype))} cannot be a weight")
    shape = file.shape(member.name, shape)
    if start + math.prod(shape) * dtype.itemsize != member.size:
        raise file.fault("weights-format", f"{name}: its shape and type do not fill its {member.size} bytes")

    def values() -> Array:
        raw = archive.content(file, member)[start:]
        return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")

    return Entry(kind, shape, values)


def _header(file: WeightsFile, member: Member) -> tuple[Shape, bool, np.dtype[np.generic], int]:
    """Shape, whether Fortran order, element type, and where the values begin."""
    stream = io.BytesIO(archive.head(file, member, HEAD))
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](stream)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        raise file.fault("weights-format", f"member {shown(member.name)} has no readable .npy header") from None
    return shape, bool(fortran), dtype, stream.tell()
