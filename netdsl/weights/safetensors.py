"""The safetensors format: 8 bytes of header length, a JSON header, then the values, without holes or overlaps.

Source: the format section of the safetensors project's README.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from netdsl.weights.tensors import STORED_AS, Entry, WeightsFile, shown

MAX_HEADER = 8 << 20  # bytes; chosen: a hundred times the header of DenseNet-121
DTYPES = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8", "F8_E5M2": "float8",
}  # fmt: skip


def looks_like(file: WeightsFile) -> bool:
    """Whether the file begins as a safetensors file does."""
    return file.data[8:9] == b"{"


def read(file: WeightsFile) -> dict[str, Entry]:
    """Every tensor, as a view into the mapped file. Raises WeightsError."""
    header, start = _header(file)
    header.pop("__metadata__", None)
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, fields in header.items():
        dtype, shape, first, last = _fields(file, name, fields)
        if last - first != math.prod(shape) * np.dtype(STORED_AS[dtype]).itemsize:
            raise file.fault("weights-format", f"{shown(name)}: its shape and type do not fill its byte range")
        if start + last > file.size:
            raise file.fault("weights-truncated", f"{shown(name)}: its values would lie beyond the end of the file")
        entries[name] = file.entry(name, dtype, shape, start + first)
        spans.append((first, last, name))
    _check_cover(file, spans, file.size - start)
    return entries


def _header(file: WeightsFile) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the values begin."""
    if file.size < 8:
        raise file.fault("weights-truncated", f"the file has {file.size} bytes, fewer than a header's length takes")
    length = int.from_bytes(file.data[:8], "little")
    if length > file.size - 8:
        raise file.fault("weights-truncated", f"its header claims {length} bytes, the file has {file.size - 8} more")
    if length > MAX_HEADER:
        raise file.fault("weights-too-large", f"its header has {length} bytes; at most {MAX_HEADER} are read")
    try:
        text = file.data[8 : 8 + length].decode("utf-8")
        header = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _Duplicate) else "it is no well-formed JSON text"
        raise file.fault("weights-format", f"its header cannot be read: {reason}") from None
    if not isinstance(header, dict):
        raise file.fault("weights-format", "its header is no JSON object")
    return header, 8 + length


class _Duplicate(ValueError):
    """A name stands twice in one JSON object."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        name = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _Duplicate(f"the name {shown(name)} stands in it twice")
    return out


def _no_constant(word: str) -> None:
    raise ValueError(word)


def _fields(file: WeightsFile, name: str, fields: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape and byte range of one tensor."""
    if not isinstance(fields, dict):
        raise file.fault("weights-format", f"{shown(name)}: its header entry is no JSON object")
    word, span = fields.get("dtype"), fields.get("data_offsets")
    if not isinstance(word, str) or word not in DTYPES:
        found = shown(word) if isinstance(word, str) else "nothing usable"
        raise file.fault("weights-format", f"{shown(name)}: unknown element type ({found})", hint=_known())
    if not isinstance(span, list) or len(span) != 2 or any(type(b) is not int for b in span):
        raise file.fault("weights-format", f"{shown(name)}: its data_offsets are no pair of whole numbers")
    if not 0 <= span[0] <= span[1] < 2**63:
        raise file.fault("weights-format", f"{shown(name)}: its data_offsets are out of order")
    return DTYPES[word], file.shape(name, fields.get("shape")), span[0], span[1]


def _known() -> str:
    return "element types that can be read: " + ", ".join(DTYPES)


def _check_cover(file: WeightsFile, spans: list[tuple[int, int, str]], size: int) -> None:
    """The byte ranges must follow each other from 0 to the end of the file, as the format demands."""
    at = 0
    for first, last, name in sorted(spans):
        if first != at:
            fault = "overlaps another tensor" if first < at else "leaves a hole before it"
            raise file.fault("weights-format", f"{shown(name)}: its byte range {fault}")
        at = last
    if at != size:
        raise file.fault("weights-format", f"{size - at} bytes at the end of the file belong to no tensor")
