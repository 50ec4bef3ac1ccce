"""The typed graph: what a network computes, every shape known, nothing of how.

Nodes stand in order of execution and refer to earlier nodes by index. Everything is frozen; a rewrite makes another
Graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any

import numpy as np

from netdsl.errors import Source, Span
from netdsl.frozen import frozen
from netdsl.ops.base import Array, Op
from netdsl.tensor import Shape, TensorType

Read = Callable[[str], Array]  # the stored tensor of a given name


@frozen
class Stored:
    """A weight as the file stores it, under its dotted name."""

    name: str
    shape: Shape
    learnable: bool = True

    def evaluate(self, read: Read) -> Array:
        return read(self.name)


@frozen
class Constant:
    """A weight written in the network itself (photo filters). `values` is nested tuples."""

    values: Any
    shape: Shape

    def evaluate(self, read: Read) -> Array:
        return np.asarray(self.values, np.float64).reshape(self.shape)


@frozen
class Derived:
    """A weight computed at bind time from others: `function(*evaluated parts)`.

    Parts come as they are stored, mostly float32; the function computes in float64, and rounds what is as large as the
    weights to their type.

    rowwise  whether any rows (along the first axis) are the function of these rows of all stored tensors it comes from
    """

    function: Callable[..., Array]
    parts: tuple[Weight | None, ...]
    shape: Shape
    rowwise: bool = False

    def evaluate(self, read: Read) -> Array:
        """Parts first, and without recursion: rewrites of a long chain of layers nest as deep as it is long."""
        todo: list[tuple[Weight | None, bool]] = [(self, False)]  # and whether the parts are made
        made: list[Any] = []
        while todo:
            weight, ready = todo.pop()
            if not isinstance(weight, Derived):
                made.append(None if weight is None else weight.evaluate(read))
            elif ready:
                first = len(made) - len(weight.parts)
                made[first:] = [weight.function(*made[first:])]
            else:
                todo += [(weight, True), *((part, False) for part in reversed(weight.parts))]
        result: Array = made[0]
        return result


Weight = Stored | Constant | Derived


def is_rowwise(*weights: Weight | None) -> bool:
    """Whether any rows of weights follow from the same rows of what is stored."""
    return all(w is None or isinstance(w, Stored) or (isinstance(w, Derived) and w.rowwise) for w in weights)


@frozen
class Node:
    """One operation applied.

    path     dotted name; the prefix of its weights' names ("layer1.0.conv1")
    inputs   indices of earlier nodes; those of `op` first, then one more for each Add or Mul in `fused`
    type     output type
    weights  by role
    fused    elementwise operations applied to the result in order (an epilogue; filled by passes). `Add` and `Mul`
             there take the running value and the next of the extra inputs
    span     where it was written
    """

    path: str
    op: Op
    inputs: tuple[int, ...]
    type: TensorType
    weights: Mapping[str, Weight] = field(default_factory=dict)
    fused: tuple[Op, ...] = ()
    span: Span | None = None


@frozen
class Preprocess:
    """What is done to a picture before it enters a network (the options of the input line).

    resize  shorter side in pixels (int), exact (height, width), or None
    crop    centre crop (height, width), or None
    range   values that black and white become, before mean and std
    mean, std   per channel, or one for all: (value - mean) / std
    order   "rgb" or "bgr"
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    order: str = "rgb"
    interpolation: str = "bilinear"


@frozen
class InputSpec:
    """A network input. `free` says which of (H, W) were written `?` and follow the data."""

    name: str
    node: int
    type: TensorType
    preprocess: Preprocess = Preprocess()
    free: tuple[bool, bool] = (False, False)


@frozen
class OutputSpec:
    """A network output."""

    name: str
    node: int


@frozen
class WeightsSpec:
    """Where trained weights come from: a file beside the network (absolute path), or a URL with its sha256 digits."""

    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    span: Span | None = None


@frozen
class Graph:
    """A whole network with every shape known.

    labels is the absolute path of a text file with one class name a line, or None.
    arguments holds the values of the net's parameters that it was built with.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    source: Source
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightsSpec | None = None
    labels: str | None = None

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        """Types of the inputs of a node's operation (those of its epilogue come after them)."""
        own = len(node.inputs) - sum(op.name in ("add", "mul") for op in node.fused)
        return tuple(self.nodes[i].type for i in node.inputs[:own])

    def node_parameters(self, node: Node) -> int:
        """Learnable values of one node."""
        return sum(int(np.prod(p.shape)) for p in node.op.params(*self.input_types(node)).values() if p.learnable)

    def node_macs(self, node: Node) -> int:
        """Multiply-accumulates of one node for one image."""
        return node.op.macs(*self.input_types(node))

    @property
    def parameters(self) -> int:
        """Learnable values (running statistics are not counted)."""
        return sum(self.node_parameters(n) for n in self.nodes)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; FLOP = 2 x macs."""
        return sum(self.node_macs(n) for n in self.nodes)

    @property
    def tensors(self) -> dict[str, Shape]:
        """Name and shape of every stored tensor, in order of execution."""
        return {w.name: w.shape for n in self.nodes for w in n.weights.values() if isinstance(w, Stored)}

    def consumers(self) -> list[list[int]]:
        """For each node, the nodes that read it."""
        out: list[list[int]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for j in node.inputs:
                out[j].append(i)
        return out
