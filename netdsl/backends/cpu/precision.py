"""Weights in 16 bits: of which layers, on which processors, and how they are packed.

A layer that meets each weight with few pixels takes as long as its weights take to come from memory: half the bytes,
half the time. They become float32 again in the registers, and sums are float32. Dense layers are such: even with the
most images that go together each weight meets sixteen. Convolutions are bound by arithmetic (each weight meets all 49
pixels of a 7x7 map), and widening would add to that. So their weights stay float32, as do those of dense layers that
fit a cache.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.target import host
from netdsl.backends.cpu.tiles import L2_BYTES
from netdsl.errors import DeviceError, WeightsError
from netdsl.frozen import frozen
from netdsl.graph.ir import Graph, Node
from netdsl.halves import BITS
from netdsl.ops.dense import Dense

F32 = NDArray[np.float32]
U16 = NDArray[np.uint16]

LEAST = L2_BYTES // 4  # weights of a layer; fewer stay in the second-level cache from call to call
INFINITE = 0x7C00  # the bits of float16's infinity without its sign


def check_precision(precision: str) -> None:
    """Raises DeviceError where this processor cannot widen float16."""
    if precision == "float16" and not host().widens_float16:
        message = f"precision float16 needs a processor that converts it (F16C), and this one ({host().name}) does not"
        raise DeviceError(message, code="precision-processor", hint='use precision="bfloat16", which every one can')


def stored_layers(graph: Graph, precision: str) -> dict[int, str]:
    """For each node whose weights are kept in 16 bits, how: "float16" or "bfloat16". None in float32.

    Batch sizes make no difference, so that they do not change answers.
    """
    if precision == "float32":
        return {}
    return {i: precision for i, node in enumerate(graph.nodes) if isinstance(node.op, Dense) and _floats(node) > LEAST}


def _floats(node: Node) -> int:
    return math.prod(node.weights["weight"].shape)


@frozen
class Storage:
    """What a precision changed: `layers` whose weights are kept as `precision`, their bytes in it and in float32."""

    precision: str
    layers: int
    bytes: int
    float32_bytes: int

    def __str__(self) -> str:
        if not self.layers:
            return f"no layer waits for memory, so no weights are kept as {self.precision}"
        many = f"weights of {self.layers} layer{'s' * (self.layers > 1)} as {self.precision}"
        return f"{many}, {self.bytes / 1e6:,.3g} MB instead of {self.float32_bytes / 1e6:,.3g} MB"


def storage(graph: Graph, precision: str) -> Storage:
    """What a precision changes in a rewritten graph."""
    floats = [_floats(graph.nodes[i]) for i in stored_layers(graph, precision)]
    return Storage(precision, len(floats), 2 * sum(floats), 4 * sum(floats))


def halved(values: F32, stored: str, path: str) -> U16:
    """Weights of the layer at a path as 16-bit numbers, rounded to nearest. Raises WeightsError beyond their range."""
    bits = BITS[stored](values)
    if stored == "float16" and (np.isfinite(values) & (bits & 0x7FFF == INFINITE)).any():
        largest = np.abs(values[np.isfinite(values)]).max()
        message = f"{path} has weights up to {largest:.4g}, and float16 ends at 65504"
        raise WeightsError(message, code="weights-range", hint='precision="bfloat16" has the range of float32')
    return bits
