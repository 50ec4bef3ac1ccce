"""The dense (fully connected) layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from netdsl.frozen import frozen
from netdsl.ops.base import Array, Layer, Op, Param, ShapeFault
from netdsl.ops.window import BIAS, FEATURES, checked
from netdsl.tensor import TensorType


@frozen
class Dense(Op):
    """y[n,k] = bias[k] + sum over f of x[n,f] weight[k,f]. weight [features, F], bias [features]."""

    name: ClassVar[str] = "dense"
    features: int
    bias: bool = True

    def infer(self, *inputs: TensorType) -> TensorType:
        (x,) = inputs
        if x.is_map:
            raise ShapeFault(f"dense needs a vector, but its input is a {x} map", "write `flatten` before it")
        checked("the weight", self.features, x.elements)
        return checked("the output", self.features)

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        weight = {"weight": Param((self.features, inputs[0].elements))}
        return weight | ({"bias": Param((self.features,))} if self.bias else {})

    def macs(self, *inputs: TensorType) -> int:
        return self.features * inputs[0].elements

    def describe(self) -> str:
        return f"{self.name} {self.features}"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        y: Array = inputs[0] @ params["weight"].T
        return y + params["bias"] if self.bias else y


def _dense(x: TensorType, *, features: int, bias: bool) -> Op:
    return Dense(features, bias)


WORDS = (
    Layer(
        "dense", "Fully connected layer on a vector.",
        (FEATURES,), (BIAS,), (("", _dense),), example="flatten | dense 10",
    ),
)  # fmt: skip
