"""The state of lowering one graph for one batch size: views of tensors, buffers and the steps so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda.precision import map_type, tensor_types
from netdsl.backends.cuda.steps import Geometry, Kernel, Step
from netdsl.backends.cuda.tiles import Target
from netdsl.backends.cuda.views import ARENA, LANES, Argument, Data, View, lanes_of, layout, padded
from netdsl.graph.ir import Graph, Node, Weight
from netdsl.plan.residence import homes, spent_residuals
from netdsl.tensor import TensorType

F32 = NDArray[np.float32]


@dataclass
class WeightBank:
    """Stored tensors, and what was packed from them once for all batch sizes."""

    stored: Mapping[str, NDArray[Any]]
    packed: dict[tuple[Any, ...], Data] = field(default_factory=dict)

    def evaluate(self, weight: Weight) -> F32:
        return np.asarray(weight.evaluate(self.stored.__getitem__), np.float32)

    def value(self, node: Node, role: str) -> F32 | None:
        """A node's weight as float32, or None when it has none of that role."""
        weight = node.weights.get(role)
        return None if weight is None else self.evaluate(weight)

    def required(self, node: Node, role: str) -> F32:
        """A node's weight as float32, which it must have."""
        return self.evaluate(node.weights[role])

    def pack(self, key: tuple[Any, ...], make: Callable[[], NDArray[Any]]) -> Data:
        """The packed form under `key`, flat, made on first use."""
        if key not in self.packed:
            self.packed[key] = Data(np.ascontiguousarray(make()).reshape(-1))
        return self.packed[key]

    def channels(
        self, key: tuple[Any, ...], make: Callable[[], F32 | None], channels: int, multiple: int = LANES
    ) -> Data:
        """A value for each channel, with zeros up to a multiple; all zeros for None."""

        def filled() -> F32:
            out, values = np.zeros(padded(channels, multiple), np.float32), make()
            if values is not None:
                out[:channels] = values
            return out

        return self.pack((*key, multiple), filled)


class Planner:
    """Collects the steps of one graph for `images` images in one precision of convolutions and dense layers."""

    def __init__(
        self, graph: Graph, bank: WeightBank, images: int, precision: str = "float32", target: Target | None = None,
        exact: bool = False,
    ) -> None:  # fmt: skip
        self.graph, self.bank, self.images, self.precision = graph, bank, images, precision
        self.exact = exact  # whether every convolution is a plain sum of products
        self.target = target or Target()
        self.views: dict[int, View] = {}
        self.flat_maps: dict[int, View] = {}  # vectors that are maps left channels last: the map's view, by node
        self.types = tensor_types(graph, precision)  # in memory, by node
        self.multiple = lanes_of(map_type(precision))  # of the lanes of every tensor
        self.floats: list[int] = []  # of each buffer, words of 4 bytes
        self.steps: list[Step] = []
        self.homes = homes(graph, self.multiple, self._alike)
        self.residuals = spent_residuals(graph, self.homes, self._alike)

    def input_views(self, node: Node) -> list[View]:
        return [self.views[i] for i in node.inputs]

    def _alike(self, i: int, j: int) -> bool:
        """Whether the results of two nodes have the same type in memory."""
        return self.types[i] == self.types[j]

    def channels(self, node: Node, name: str, make: Callable[[], F32 | None]) -> Data:
        """A value for each channel of a node's result and its lanes, see `WeightBank.channels`."""
        return self.bank.channels((node.path, name), make, node.type.channels, self.multiple)

    def fresh(self, kind: TensorType, dtype: str) -> View:
        """A view of a buffer of its own."""
        view, image = layout(kind, dtype, self.multiple)
        return replace(view, buffer=self._buffer(image * self.images))

    def scratch(self, floats: int) -> View:
        """Memory for one step or a few, without a layout."""
        return View(self._buffer(floats), 0, floats, 1, 1, floats, floats, 0)

    def _buffer(self, floats: int) -> int:
        self.floats.append(floats)
        return len(self.floats) - 1

    def output(self, index: int) -> View:
        """The place of a node's result.

        A result that is joined with others lies within the joined tensor from the start; one that is added to a
        residual nobody reads later takes the residual's place.
        """
        if index not in self.views:
            if index in self.residuals:
                self.views[index] = self.views[self.residuals[index]]
            elif index in self.homes:
                joined, first = self.homes[index]
                whole, channels = self.output(joined), self.graph.nodes[index].type.channels
                self.views[index] = replace(whole, start=whole.start + first, channels=channels)
            else:
                self.views[index] = self.fresh(self.graph.nodes[index].type, self.types[index])
        return self.views[index]

    def emit(self, kernel: Kernel, geometry: Geometry, node: Node, work: int, **arguments: Argument) -> None:
        self.steps.append(Step(kernel, geometry, {"arena": ARENA, **arguments}, max(1, work), node.path))
