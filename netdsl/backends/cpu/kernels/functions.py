"""Elementary functions on vectors, each a plain function of (x, a) with `a` the operation's parameter in all lanes.

exp: Cody and Waite range reduction, then a degree-6 polynomial (Cephes expf); relative error below 2e-7.
log: Cephes logf on the mantissa; erf: Abramowitz and Stegun 7.1.26, absolute error below 2e-7 (formula; float32).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from netdsl.backends.cpu.simd import (
    absolute,
    add,
    div,
    fma,
    leaf,
    maximum,
    minimum,
    mul,
    nearest,
    power_of_two,
    splat,
    split_exponent,
    sub,
    unless_nan,
    where_positive,
    zero,
)  # fmt: skip

c = np.float32


@leaf
def exp(x):  # type: ignore[no-untyped-def]
    x = minimum(splat(c(88.37626)), maximum(splat(c(-87.33654)), x))
    k = nearest(mul(x, splat(c(1.44269504088896341))))
    r = fma(k, splat(c(-0.693359375)), x)
    r = fma(k, splat(c(2.12194440e-4)), r)
    p = splat(c(1.9875691500e-4))
    p = fma(p, r, splat(c(1.3981999507e-3)))
    p = fma(p, r, splat(c(8.3334519073e-3)))
    p = fma(p, r, splat(c(4.1665795894e-2)))
    p = fma(p, r, splat(c(1.6666665459e-1)))
    p = fma(p, r, splat(c(5.0000001201e-1)))
    p = add(fma(p, mul(r, r), r), splat(c(1.0)))
    return mul(p, power_of_two(k))


@leaf
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of positive normal numbers."""
    m, e = split_exponent(x)
    big = sub(m, splat(c(1.41421356)))
    e = where_positive(big, add(e, splat(c(1.0))), e)
    m = sub(where_positive(big, mul(m, splat(c(0.5))), m), splat(c(1.0)))
    z = mul(m, m)
    p = splat(c(7.0376836292e-2))
    p = fma(p, m, splat(c(-1.1514610310e-1)))
    p = fma(p, m, splat(c(1.1676998740e-1)))
    p = fma(p, m, splat(c(-1.2420140846e-1)))
    p = fma(p, m, splat(c(1.4249322787e-1)))
    p = fma(p, m, splat(c(-1.6668057665e-1)))
    p = fma(p, m, splat(c(2.0000714765e-1)))
    p = fma(p, m, splat(c(-2.4999993993e-1)))
    p = fma(p, m, splat(c(3.3333331174e-1)))
    y = mul(mul(p, m), z)
    y = fma(e, splat(c(-2.12194440e-4)), y)
    y = fma(z, splat(c(-0.5)), y)
    return unless_nan(fma(e, splat(c(0.693359375)), add(m, y)), x)


@leaf
def sigmoid(x, a):  # type: ignore[no-untyped-def]
    return div(splat(c(1.0)), add(splat(c(1.0)), exp(sub(zero(), x))))


@leaf
def tanh(x, a):  # type: ignore[no-untyped-def]
    """An odd polynomial of degree 13 over an even one of degree 6, for x limited to where tanh rounds to 1.

    Relative error below 4e-7. Coefficients: the rational minimax approximation of the Eigen library (MPL 2).
    """
    x = minimum(splat(c(7.90531110763549805)), maximum(splat(c(-7.90531110763549805)), x))
    z = mul(x, x)
    p = splat(c(-2.76076847742355e-16))
    p = fma(p, z, splat(c(2.00018790482477e-13)))
    p = fma(p, z, splat(c(-8.60467152213735e-11)))
    p = fma(p, z, splat(c(5.12229709037114e-08)))
    p = fma(p, z, splat(c(1.48572235717979e-05)))
    p = fma(p, z, splat(c(6.37261928875436e-04)))
    p = fma(p, z, splat(c(4.89352455891786e-03)))
    q = splat(c(1.19825839466702e-06))
    q = fma(q, z, splat(c(1.18534705686654e-04)))
    q = fma(q, z, splat(c(2.26843463243900e-03)))
    q = fma(q, z, splat(c(4.89352518554385e-03)))
    return div(mul(x, p), q)


@leaf
def erf(x):  # type: ignore[no-untyped-def]
    size = absolute(x)
    t = div(splat(c(1.0)), fma(size, splat(c(0.3275911)), splat(c(1.0))))
    p = splat(c(1.061405429))
    p = fma(p, t, splat(c(-1.453152027)))
    p = fma(p, t, splat(c(1.421413741)))
    p = fma(p, t, splat(c(-0.284496736)))
    p = fma(p, t, splat(c(0.254829592)))
    y = sub(splat(c(1.0)), mul(mul(p, t), exp(sub(zero(), mul(x, x)))))
    return where_positive(x, y, sub(zero(), y))


@leaf
def identity(x, a):  # type: ignore[no-untyped-def]
    return x


@leaf
def relu(x, a):  # type: ignore[no-untyped-def]
    return maximum(zero(), x)


@leaf
def relu6(x, a):  # type: ignore[no-untyped-def]
    return minimum(splat(c(6.0)), maximum(zero(), x))


@leaf
def leaky(x, a):  # type: ignore[no-untyped-def]
    return where_positive(x, x, mul(a, x))


@leaf
def elu(x, a):  # type: ignore[no-untyped-def]
    """x above 0, else a * (exp(x) - 1); the difference by its series where it would cancel."""
    series = splat(c(1.0 / 120.0))
    for k in (1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0):
        series = fma(series, x, splat(c(k)))
    series = mul(series, x)
    down = where_positive(add(x, splat(c(0.25))), series, sub(exp(x), splat(c(1.0))))
    return where_positive(x, x, mul(a, down))


@leaf
def gelu(x, a):  # type: ignore[no-untyped-def]
    return mul(mul(x, splat(c(0.5))), add(splat(c(1.0)), erf(mul(x, splat(c(0.70710678118))))))


@leaf
def gelu_tanh(x, a):  # type: ignore[no-untyped-def]
    inner = mul(splat(c(0.7978845608)), fma(mul(mul(x, x), x), splat(c(0.044715)), x))
    return mul(mul(x, splat(c(0.5))), add(splat(c(1.0)), tanh(inner, inner)))


@leaf
def silu(x, a):  # type: ignore[no-untyped-def]
    return mul(x, sigmoid(x, a))


@leaf
def hardsigmoid(x, a):  # type: ignore[no-untyped-def]
    y = fma(x, splat(c(1.0 / 6.0)), splat(c(0.5)))
    return minimum(splat(c(1.0)), maximum(zero(), y))


@leaf
def hardswish(x, a):  # type: ignore[no-untyped-def]
    return mul(x, hardsigmoid(x, a))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "identity": identity, "relu": relu, "relu6": relu6, "leaky": leaky, "elu": elu, "gelu": gelu,
    "gelu_tanh": gelu_tanh, "silu": silu, "hardsigmoid": hardsigmoid, "hardswish": hardswish, "sigmoid": sigmoid,
    "tanh": tanh,
}  # fmt: skip
