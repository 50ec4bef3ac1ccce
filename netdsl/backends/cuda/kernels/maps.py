"""Values of maps: float32 in a kernel's registers, whatever type they have in memory.

Here alone is said how a type is read and written. Places count elements of the type. Halves are rounded to nearest,
ties to even, once, when they are stored: in float16 what is beyond 65504 becomes infinite.

A thread moves 16 bytes, four words. A word holds a lane of a kernel: a float32, or of a map of halves two neighbouring
values, which are a pair of float32 in registers. `lanewise` makes of a function of values one of lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cuda.kernels.ptx import (
    as_bf16,
    as_f16,
    bits,
    load4,
    load_half,
    of_bf16,
    of_f16,
    store4,
    store_half,
)
from netdsl.backends.cuda.simt import device_function

Function = Callable[..., Any]

PAIRS: dict[str, tuple[Function, Function]] = {  # of two values a word, and back
    "float16": (as_f16, of_f16),
    "bfloat16": (as_bf16, of_bf16),
}


def lane(value: np.float32, dtype: str) -> Any:
    """A lane all of whose values are this one."""
    return value if dtype == "float32" else (value, value)


def loader(dtype: str) -> Function:
    """A device function of (array, at): the four lanes of 16 bytes, by one load."""
    if dtype == "float32":
        return load4
    _, pair = PAIRS[dtype]

    @device_function
    def load(array, at):  # type: ignore[no-untyped-def]
        a, b, c, d = load4(array, at >> 1)
        return pair(a), pair(b), pair(c), pair(d)

    return load


def constants(dtype: str) -> Function:
    """A device function of (array, at): four lanes of float32, as constants are, beside maps of this type."""
    if dtype == "float32":
        return load4

    @device_function
    def load(array, at):  # type: ignore[no-untyped-def]
        a, b, c, d = load4(array, at)
        e, f, g, h = load4(array, at + 4)
        return (a, b), (c, d), (e, f), (g, h)

    return load


def storer(x_type: str, y_type: str) -> Function:
    """A device function of (array, at, a, b, c, d): stores four lanes of values that came from x to y, of its type.

    Where x has halves and y has not, that is 32 bytes.
    """
    if x_type == "float32":
        assert y_type == "float32"
        return store4
    if y_type == "float32":

        @device_function
        def store_floats(array, at, a, b, c, d):  # type: ignore[no-untyped-def]
            store4(array, at, a[0], a[1], b[0], b[1])
            store4(array, at + 4, c[0], c[1], d[0], d[1])

        return store_floats
    word, _ = PAIRS[y_type]

    @device_function
    def store(array, at, a, b, c, d):  # type: ignore[no-untyped-def]
        first, second = bits(word(a[0], a[1])), bits(word(b[0], b[1]))
        store4(array, at >> 1, first, second, bits(word(c[0], c[1])), bits(word(d[0], d[1])))

    return store


def values_loader(dtype: str) -> Function:
    """As `loader`, the values one after another: four, or eight halves."""
    return _flattened(loader(dtype), dtype)


def values_constants(dtype: str) -> Function:
    """As `constants`, the values one after another."""
    return _flattened(constants(dtype), dtype)


def _flattened(load: Function, dtype: str) -> Function:
    if dtype == "float32":
        return load

    @device_function
    def load_values(array, at):  # type: ignore[no-untyped-def]
        a, b, c, d = load(array, at)
        return a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]

    return load_values


def values_storer(x_type: str, y_type: str) -> Function:
    """As `storer`, of the values that an array holds from k on: a device function of (array, at, values, k)."""
    store = storer(x_type, y_type)

    @device_function
    def store_four(array, at, values, k):  # type: ignore[no-untyped-def]
        store(array, at, values[k], values[k + 1], values[k + 2], values[k + 3])

    @device_function
    def store_eight(array, at, values, k):  # type: ignore[no-untyped-def]
        a, b = (values[k], values[k + 1]), (values[k + 2], values[k + 3])
        c, d = (values[k + 4], values[k + 5]), (values[k + 6], values[k + 7])
        store(array, at, a, b, c, d)

    return store_four if x_type == "float32" else store_eight


def word_finder(dtype: str) -> Function:
    """A device function of (at): the word of 4 bytes that an element is in, or the first of."""

    @device_function
    def same(at):  # type: ignore[no-untyped-def]
        return at

    @device_function
    def half(at):  # type: ignore[no-untyped-def]
        return at >> 1

    return same if dtype == "float32" else half


def getter(dtype: str) -> Function:
    """A device function of (array, at): one value."""
    if dtype == "float32":

        @device_function
        def get_float(array, at):  # type: ignore[no-untyped-def]
            return array[at]

        return get_float
    _, pair = PAIRS[dtype]

    @device_function
    def get(array, at):  # type: ignore[no-untyped-def]
        return pair(load_half(array, at))[0]

    return get


def setter(dtype: str) -> Function:
    """A device function of (array, at, value): array[at] = value."""
    if dtype == "float32":

        @device_function
        def set_float(array, at, value):  # type: ignore[no-untyped-def]
            array[at] = value

        return set_float
    word, _ = PAIRS[dtype]

    @device_function
    def put(array, at, value):  # type: ignore[no-untyped-def]
        store_half(array, at, word(value, value))

    return put


def lanewise(function: Function, dtype: str, lanes: int, scalars: int) -> Function:
    """A device function of so many lanes, and then so many values, of one of values."""
    if dtype == "float32":
        return function

    @device_function
    def one_and_one(x, a):  # type: ignore[no-untyped-def]
        return function(x[0], a), function(x[1], a)

    @device_function
    def one_and_two(x, a, b):  # type: ignore[no-untyped-def]
        return function(x[0], a, b), function(x[1], a, b)

    @device_function
    def two(x, y):  # type: ignore[no-untyped-def]
        return function(x[0], y[0]), function(x[1], y[1])

    @device_function
    def two_and_one(x, y, a):  # type: ignore[no-untyped-def]
        return function(x[0], y[0], a), function(x[1], y[1], a)

    return {(1, 1): one_and_one, (1, 2): one_and_two, (2, 0): two, (2, 1): two_and_one}[lanes, scalars]
