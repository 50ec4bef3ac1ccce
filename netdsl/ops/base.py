"""What an operator is, and how a layer word of the language becomes one.

An `Op` is one operation with all attributes resolved to plain numbers; it knows its shape rule, its parameters, its
cost and its meaning (`reference`, in NumPy). A `Layer` is a word a .net file may use: its arguments with their kinds,
defaults and documentation, and how to make the `Op` (or the few `Op`s) that it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netdsl.frozen import frozen
from netdsl.tensor import Shape, TensorType

Array = NDArray[Any]
Pair = tuple[int, int]  # (vertical, horizontal)
Pad4 = tuple[int, int, int, int]  # (top, left, bottom, right)


class Word(str):
    """A bare word used as a value (`same`, `global`, `bilinear`), as opposed to a quoted string."""


class ArgumentFault(Exception):
    """A layer's argument is wrong. `option` names it (None: the layer as a whole)."""

    def __init__(self, message: str, option: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.option, self.hint = message, option, hint


class ShapeFault(Exception):
    """An input shape does not suit the operation; the message carries expected and found with their values."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


@frozen
class Param:
    """One stored tensor of an operation. Buffers (running statistics) are not learnable and not counted."""

    shape: Shape
    learnable: bool = True


@frozen
class Window:
    """How output positions see the input: for receptive fields. All (vertical, horizontal).

    Outputs that lie w apart see inputs that lie up to (w stride + dilation (kernel - 1)) // scale apart. `scale` is 1
    but where a map is enlarged.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    scale: Pair = (1, 1)


@frozen
class Op:
    """One operation with its attributes (the fields of the subclass) resolved."""

    name: ClassVar[str] = ""

    def infer(self, *inputs: TensorType) -> TensorType:
        """The output type. Raises ShapeFault."""
        return inputs[0]

    def params(self, *inputs: TensorType) -> dict[str, Param]:
        """Stored tensors by role ("weight", "bias", "running_mean", "running_var"), in PyTorch's order."""
        return {}

    def macs(self, *inputs: TensorType) -> int:
        """Multiply-accumulates for one image (convolutions, transposed convolutions and dense layers; else 0)."""
        return 0

    def window(self, *inputs: TensorType) -> Window | None:
        """The spatial window, or None for operations that work point by point."""
        return None

    def describe(self) -> str:
        """The operation as a table shows it, such as "conv 64 7x7 /2"."""
        return self.name

    def reference(self, params: Mapping[str, Array], *inputs: Array) -> Array:
        """The definition in plain NumPy, on whole batches [N, *shape], in the inputs' dtype (float32 or float64)."""
        raise TypeError(f"{type(self).__name__} has no meaning of its own")


@frozen
class Input(Op):
    """A network input."""

    name: ClassVar[str] = "input"
    type: TensorType

    def infer(self, *inputs: TensorType) -> TensorType:
        return self.type


@frozen
class Kind:
    """A kind of argument value: how it is described to people, and how a value of the language becomes it.

    The language hands over int, float, bool, str (quoted), Word, and (nested) tuples of these; a size written `3x5`
    is the tuple (3, 5). `convert` raises ArgumentFault-free ValueError when the value is not of this kind.
    """

    expected: str
    convert: Callable[[Any], Any]


@frozen
class Option:
    """One argument of a layer word."""

    name: str
    kind: Kind
    default: Any = None
    doc: str = ""
    required: bool = False


# make(x: TensorType, **values) -> Op; values holds every argument of the layer by name, converted by its kind, or the
# default where it was not written. Raises ArgumentFault or ShapeFault.
Make = Callable[..., Op]


@dataclass(frozen=True)
class Layer:
    """A layer word of the language.

    positional   arguments that may be given by position, in order (each may also be given by name)
    options      arguments given by name only
    parts        what it stands for: (path suffix, make) in order; one part with suffix "" for most
    """

    name: str
    summary: str
    positional: tuple[Option, ...]
    options: tuple[Option, ...]
    parts: tuple[tuple[str, Make], ...]
    aliases: tuple[str, ...] = ()
    example: str = ""
    arguments: dict[str, Option] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", {o.name: o for o in self.positional + self.options})


def _int(low: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError
        return value

    return convert


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise ValueError
    return float(value)


def _positive(value: Any) -> float:
    number = _float(value)
    if number <= 0:
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _pair(low: int) -> Callable[[Any], Pair]:
    one = _int(low)

    def convert(value: Any) -> Pair:
        if isinstance(value, tuple):
            if len(value) != 2:
                raise ValueError
            return one(value[0]), one(value[1])
        return one(value), one(value)

    return convert


def _pad(value: Any) -> Pad4 | str:
    if isinstance(value, Word) and value in ("same", "same_lower"):
        return str(value)
    one = _int(0)
    if isinstance(value, tuple) and len(value) == 4:
        return one(value[0]), one(value[1]), one(value[2]), one(value[3])
    vertical, horizontal = _pair(0)(value)
    return vertical, horizontal, vertical, horizontal


COUNT = Kind("a positive whole number", _int(1))
WHOLE = Kind("a whole number, 0 or more", _int(0))
NUMBER = Kind("a number", _float)
POSITIVE = Kind("a number above 0", _positive)
FLAG = Kind("yes or no", _bool)
SIZE = Kind("a size such as 3x3, or one positive whole number", _pair(1))
SIZE0 = Kind("a size such as 0x1, or one whole number, 0 or more", _pair(0))
PAD = Kind("a padding: p, hxw, (top,left,bottom,right), same or same_lower", _pad)


def choice(*words: str) -> Kind:
    """The kind "one of these bare words"."""

    def convert(value: Any) -> str:
        if not isinstance(value, Word) or value not in words:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(words), convert)
