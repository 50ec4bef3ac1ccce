"""Joins: operations on several tensors. They are statements of the language, not layer words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import Array, Op, ShapeFault
from netdsl.ops.window import checked
from netdsl.tensor import TensorType


def _shapes(inputs: tuple[TensorType, ...]) -> str:
    return " and ".join(map(str, inputs))


@frozen
class Add(Op):
    """The sum of tensors of one shape."""

    name: ClassVar[str] = "add"

    def infer(self, *inputs: TensorType) -> TensorType:
        if len(set(inputs)) != 1:
            raise ShapeFault(f"add needs tensors of one shape, found {_shapes(inputs)}")
        return inputs[0]

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        total = inputs[0]
        for x in inputs[1:]:
            total = total + x
        return total


@frozen
class Mul(Op):
    """The product of tensors of one shape; a Cx1x1 map among them is a gate, one factor for each channel."""

    name: ClassVar[str] = "mul"

    def infer(self, *inputs: TensorType) -> TensorType:
        widest = max(inputs, key=lambda x: x.elements)
        gate = TensorType((widest.channels, 1, 1)) if widest.is_map else widest
        if any(x not in (widest, gate) for x in inputs):
            raise ShapeFault(f"mul needs tensors of one shape (or Cx1x1 gates), found {_shapes(inputs)}")
        return widest

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        product = inputs[0]
        for x in inputs[1:]:
            product = product * x
        return product


@frozen
class Concat(Op):
    """Tensors one after another along the channels."""

    name: ClassVar[str] = "concat"

    def infer(self, *inputs: TensorType) -> TensorType:
        if len({x.shape[1:] for x in inputs}) != 1:
            raise ShapeFault(f"concat needs maps of one height and width, found {_shapes(inputs)}")
        return checked("the output", sum(x.channels for x in inputs), *inputs[0].shape[1:])

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=1)
