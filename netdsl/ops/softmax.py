"""Softmax over the channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from netdsl.frozen import frozen
from netdsl.ops.base import Array, Layer, Op
from netdsl.tensor import TensorType


def _shifted(x: Array) -> Array:
    """x with its largest channel brought to 0, which leaves softmax as it is and keeps exp from overflowing."""
    result: Array = x - x.max(axis=1, keepdims=True)
    return result


@frozen
class Softmax(Op):
    """exp(x) / sum of exp(x) over the channels (of each position)."""

    name: ClassVar[str] = "softmax"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        raised = np.exp(_shifted(inputs[0]))
        y: Array = raised / raised.sum(axis=1, keepdims=True)
        return y


@frozen
class LogSoftmax(Op):
    """The logarithm of softmax."""

    name: ClassVar[str] = "logsoftmax"

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        x = _shifted(inputs[0])
        y: Array = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
        return y


def _softmax(x: TensorType, **_: Any) -> Op:
    return Softmax()


def _logsoftmax(x: TensorType, **_: Any) -> Op:
    return LogSoftmax()


WORDS = (
    Layer("softmax", "Probabilities over the channels.", (), (), (("", _softmax),), example="flatten | softmax"),
    Layer("logsoftmax", "The logarithm of softmax.", (), (), (("", _logsoftmax),), example="flatten | logsoftmax"),
)
