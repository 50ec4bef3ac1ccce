"""What a kernel does to its results before it stores them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.views import Address, Argument, View
from netdsl.graph.ir import Node
from netdsl.ops.activation import Relu, Relu6
from netdsl.ops.join import Add
from netdsl.plan.activations import elementwise, limits


@dataclass(frozen=True)
class Epilogue:
    """A residual to add, then limits, then an elementwise function with its parameter `a`."""

    residual: View | None = None
    low: float = -math.inf
    high: float = math.inf
    function: str | None = None
    a: float = 0.0

    def arguments(self) -> dict[str, Argument]:
        """Kernel arguments r, r_image, r_row, r_pixel, low, high, a."""
        r = self.residual
        place: Argument = Address(r) if r else 0
        strides = r.strides("r") if r else {"r_image": 0, "r_row": 0, "r_pixel": 0}
        return {"r": place, **strides, "low": self.low, "high": self.high, "a": self.a}


def epilogue(plan: Planner, node: Node) -> Epilogue:
    """The epilogue that a node's fused operations ask for."""
    residual, function = None, None
    low, high, a = -math.inf, math.inf, 0.0
    for op in node.fused:
        if isinstance(op, Add):
            residual = plan.views[node.inputs[-1]]
        elif isinstance(op, (Relu, Relu6)):
            low, high = limits(op)
        else:
            function, a = elementwise(op)
    return Epilogue(residual, low, high, function, a)
