"""What a kernel does to its results before it stores them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netdsl.backends.cuda.planner import Planner
from netdsl.backends.cuda.views import Address, Argument, View
from netdsl.graph.ir import Node
from netdsl.ops.activation import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Leaky,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Tanh,
)  # fmt: skip
from netdsl.ops.base import Op
from netdsl.ops.join import Add


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


def limits(op: Op | None) -> tuple[float, float]:
    """The range that an activation limits to; open for None."""
    if isinstance(op, Relu):
        return 0.0, math.inf
    return (0.0, 6.0) if isinstance(op, Relu6) else (-math.inf, math.inf)


def elementwise(op: Op) -> tuple[str, float]:
    """Name of the elementwise function of an activation, and its parameter."""
    if isinstance(op, Leaky):
        return "leaky", op.slope
    if isinstance(op, Elu):
        return "elu", op.alpha
    if isinstance(op, Gelu):
        return ("gelu_tanh" if op.tanh else "gelu"), 0.0
    return _FUNCTIONS[type(op)], 0.0


_FUNCTIONS: dict[type[Op], str] = {
    Relu: "relu", Relu6: "relu6", Silu: "silu", HardSwish: "hardswish", HardSigmoid: "hardsigmoid",
    Sigmoid: "sigmoid", Tanh: "tanh",
}  # fmt: skip
