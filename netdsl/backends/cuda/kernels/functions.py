"""Elementary functions on one float32, each a device function of (x, a) with `a` the operation's parameter.

exp, log, tanh, erf and pow are those of CUDA's libdevice in float32. Comparisons are so turned that nan stays nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cuda.simt import device_function

ZERO, ONE, SIX = np.float32(0.0), np.float32(1.0), np.float32(6.0)
HALF, SIXTH, ROOT_HALF = np.float32(0.5), np.float32(1.0 / 6.0), np.float32(math.sqrt(0.5))
TANH_SLOPE, TANH_CUBE = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)


@device_function
def limited(x, low, high):  # type: ignore[no-untyped-def]
    """x brought into low .. high; nan stays."""
    x = low if x < low else x
    return high if x > high else x


@device_function
def larger(x, best):  # type: ignore[no-untyped-def]
    """The larger of two; nan if either is."""
    return x if x > best or x != x else best


@device_function
def plus(x, y):  # type: ignore[no-untyped-def]
    return x + y


@device_function
def times(x, y):  # type: ignore[no-untyped-def]
    return x * y


@device_function
def between(x, y, share):  # type: ignore[no-untyped-def]
    """From x to y, that share of the way."""
    return x + share * (y - x)


@device_function
def identity(x, a):  # type: ignore[no-untyped-def]
    return x


@device_function
def relu(x, a):  # type: ignore[no-untyped-def]
    return ZERO if x < ZERO else x


@device_function
def relu6(x, a):  # type: ignore[no-untyped-def]
    return limited(x, ZERO, SIX)


@device_function
def leaky(x, a):  # type: ignore[no-untyped-def]
    return a * x if x < ZERO else x


@device_function
def elu(x, a):  # type: ignore[no-untyped-def]
    return x if x > ZERO else a * math.expm1(x)


@device_function
def sigmoid(x, a):  # type: ignore[no-untyped-def]
    return ONE / (ONE + math.exp(-x))


@device_function
def tanh(x, a):  # type: ignore[no-untyped-def]
    return math.tanh(x)


@device_function
def gelu(x, a):  # type: ignore[no-untyped-def]
    return HALF * x * (ONE + math.erf(x * ROOT_HALF))


@device_function
def gelu_tanh(x, a):  # type: ignore[no-untyped-def]
    return HALF * x * (ONE + math.tanh(TANH_SLOPE * (x + TANH_CUBE * x * x * x)))


@device_function
def silu(x, a):  # type: ignore[no-untyped-def]
    return x / (ONE + math.exp(-x))


@device_function
def hardsigmoid(x, a):  # type: ignore[no-untyped-def]
    return limited(x * SIXTH + HALF, ZERO, ONE)


@device_function
def hardswish(x, a):  # type: ignore[no-untyped-def]
    return x * limited(x * SIXTH + HALF, ZERO, ONE)


FUNCTIONS: dict[str | None, Callable[..., Any]] = {
    None: identity, "relu": relu, "relu6": relu6, "leaky": leaky, "elu": elu, "gelu": gelu, "gelu_tanh": gelu_tanh,
    "silu": silu, "hardsigmoid": hardsigmoid, "hardswish": hardswish, "sigmoid": sigmoid, "tanh": tanh,
}  # fmt: skip


@device_function
def quad_place(i, quads, width, height):  # type: ignore[no-untyped-def]
    """Number i of a grid over images x height x width x quads of words: (first word, column, row, image)."""
    pixel = i // quads
    line = pixel // width
    return 4 * (i % quads), pixel % width, line % height, line // height
