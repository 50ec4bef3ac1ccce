"""Whether a set of tensors fits a network, and what is different when it does not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from netdsl.errors import WeightsError, nearest
from netdsl.graph.ir import Graph
from netdsl.ops.base import Array
from netdsl.tensor import Shape
from netdsl.weights.tensors import COUNTERS, FLOATS, Entry, Tensors, as_float32, shape_text, shown

LISTED = 8  # lines shown of each kind of difference
MAX_CANDIDATES = 1000  # names compared for "near"; more would take seconds
OLD_DENSENET = re.compile(r"\b(norm|conv)\.([12])\.(?=\w+$)")  # files of 2017 write norm.1.weight for norm1.weight

Given = Mapping[str, Any]


def match(graph: Graph, tensors: Given, path: str | None = None) -> dict[str, Array]:
    """The tensors that the graph stores, as float32 C-contiguous arrays (aliasing the given ones where those are so).

    Names and shapes must be equal. Of other tensors, `num_batches_tracked` and whole parts that the network does not
    have at all (the auxiliary heads in GoogLeNet's file) are left out; others are a fault, because they mean that the
    weights belong to a different network.

    tensors   what `load` gives, or a mapping of names to array-likes of float16, bfloat16, float32 or float64
    path      named in errors

    Raises WeightsError: weights-mismatch (with the differences), weights-dtype.
    """
    path = path or getattr(tensors, "path", None)
    entries = _renamed(graph, _entries(tensors, path))
    _compare(graph, entries, path)
    for name in graph.tensors:
        if entries[name].dtype not in FLOATS:
            message = f"{shown(name)} holds {shown(entries[name].dtype)} values"
            hint = "weights are " + ", ".join(FLOATS) + "; quantized ones cannot be used"
            raise WeightsError(message, code="weights-dtype", path=path, hint=hint)
    return {name: as_float32(entries[name].read(), entries[name].dtype) for name in graph.tensors}


def unused(graph: Graph, tensors: Given) -> list[str]:
    """Names of the parts of a file that `match` left out, each once: ["aux1", "aux2"]."""
    parts = {_part(name) for name in tensors if isinstance(name, str) and not _is_counter(name)}
    return sorted(parts - {_part(name) for name in graph.tensors})


def _part(name: str) -> str:
    return name.partition(".")[0]


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTERS


def _entries(tensors: Given, path: str | None) -> dict[str, Entry]:
    """What is given, described; nothing of a file is read yet."""
    if isinstance(tensors, Tensors):
        return tensors.entries
    return {name: _described(name, value, path) for name, value in tensors.items()}


def _described(name: object, value: Any, path: str | None) -> Entry:
    if not isinstance(name, str):
        message = f"weights are named by text, found a {type(name).__name__}"
        raise WeightsError(message, code="weights-format", path=path)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = shown(str(error), 200)
        message = f"{shown(name)} cannot be made an array: {reason}"
        raise WeightsError(message, code="weights-dtype", path=path) from None
    if array.dtype.name == "bfloat16":  # of the ml_dtypes package, whose arrays know how to become float32
        array = array.astype(np.float32)
    kind = "float64" if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype.name
    return Entry(kind, array.shape, lambda: array)


def _renamed(graph: Graph, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The old spelling of DenseNet's names, where the network has the new one."""
    wanted = graph.tensors
    out = {}
    for name, entry in entries.items():
        new = name if name in wanted else OLD_DENSENET.sub(r"\1\2.", name[:1000])
        out[new if new in wanted and new not in entries else name] = entry
    return out


def _compare(graph: Graph, entries: Mapping[str, Entry], path: str | None) -> None:
    wanted = graph.tensors
    parts = {_part(name) for name in wanted}
    missing = [name for name in wanted if name not in entries]
    other = [name for name in entries if name not in wanted and not _is_counter(name)]
    unexpected = [name for name in other if _part(name) in parts or missing]
    wrong = [name for name, shape in wanted.items() if name in entries and entries[name].shape != shape]
    if not missing and not unexpected and not wrong:
        return
    found = {name: entries[name].shape for name in other}
    counts = [f"{len(missing)} missing", f"{len(unexpected)} unexpected", f"{len(wrong)} of another shape"]
    lines = [f"the weights do not fit {graph.name}: " + ", ".join(c for c in counts if not c.startswith("0 "))]
    lines += _section("missing", (_missing(name, wanted[name], found) for name in missing[:LISTED]), len(missing))
    lines += _section("unexpected", (_named(n, found[n]) for n in unexpected[:LISTED]), len(unexpected))
    lines += _section("shape", (_reshaped(n, wanted[n], entries[n].shape) for n in wrong[:LISTED]), len(wrong))
    raise WeightsError("\n".join(lines), code="weights-mismatch", path=path, hint=_hint(graph, missing, other, wrong))


def _section(title: str, lines: Iterable[str], count: int) -> list[str]:
    out = [f"  {title:<11} {line}" for line in lines]
    return out + ([f"  {'':<11} … and {count - LISTED} more"] if count > LISTED else [])


def _named(name: str, shape: Shape) -> str:
    return f"{shown(name)} {shape_text(shape)}"


def _reshaped(name: str, wanted: Shape, found: Shape) -> str:
    return f"{shown(name)}: the network has {shape_text(wanted)}, the file {shape_text(found)}"


def _missing(name: str, shape: Shape, found: Mapping[str, Shape]) -> str:
    """A missing name with the nearest one found in the same shape."""
    near = nearest(name, [n for n in list(found)[:MAX_CANDIDATES] if found[n] == shape and len(n) < 200])
    return _named(name, shape) + (f"   (near: {_named(near, found[near])})" if near else "")


def _hint(graph: Graph, missing: list[str], other: list[str], wrong: list[str]) -> str | None:
    """The likely reason, when all differences have one."""
    first = missing[0] if missing else ""
    longer = next((name for name in other if first and name.endswith("." + first)), None)
    if longer:
        prefix = longer[: -len(first)]
        return f"the file's names begin with {shown(prefix)}: wrap the network in scopes of that name, or rename them"
    if not missing and not other and graph.arguments and len(wrong) <= 2:
        values = ", ".join(f"{key}={value}" for key, value in graph.arguments.items())
        return f"the network was built with {shown(values, 200)}; the weights may be for other values"
    return None
