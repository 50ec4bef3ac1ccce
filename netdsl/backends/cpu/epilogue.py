"""What a kernel does to its results before they leave the registers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import Data, View, floats
from netdsl.graph.ir import Node
from netdsl.ops.activation import Relu, Relu6
from netdsl.ops.join import Add
from netdsl.plan.activations import elementwise, limits


@dataclass(frozen=True, eq=False)
class Epilogue:
    """A residual to add, then limits; or, the limits being open, an elementwise function with its parameter.

    limits holds (low, high, parameter).
    """

    residual: View | None
    limits: Data
    function: str | None

    def part(self, first: int, channels: int) -> Epilogue:
        """The epilogue of so many channels from `first` on, a multiple of a block."""
        return self if self.residual is None else replace(self, residual=self.residual.part(first, channels))


def epilogue(plan: Planner, node: Node) -> Epilogue:
    """The epilogue that a node's fused operations ask for."""
    residual, function = None, None
    low, high, parameter = -math.inf, math.inf, 0.0
    for op in node.fused:
        if isinstance(op, Add):
            residual = plan.views[node.inputs[-1]]
        elif isinstance(op, (Relu, Relu6)):
            low, high = limits(op)
        else:
            function, parameter = elementwise(op)
    return Epilogue(residual, floats(low, high, parameter), function)


def bias_of(plan: Planner, node: Node, channels: int, cols: int, first: int = 0) -> NDArray[np.float32]:
    """The bias of a node's channels from `first` on, for tiles of so many output blocks, with zeros at the end."""
    values = plan.bank.value(node, "bias")
    out = np.zeros(math.ceil(channels / (cols * WIDTH)) * cols * WIDTH, np.float32)
    if values is not None:
        out[:channels] = values[first : first + channels]
    return out
