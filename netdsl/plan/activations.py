"""Activations as kernels compute them: limits of a range, or an elementwise function by name."""

from __future__ import annotations

import math

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
