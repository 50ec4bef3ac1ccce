"""The matrices of Winograd's minimal filtering F(m x m, r x r), which evaluates polynomials at n = m + r - 1 points.

A^T [(G g G^T) * (B^T d B)] A gives an m x m patch of outputs of an r x r convolution from an n x n patch of inputs with
n^2 products instead of r^2 m^2 (Lavin and Gray, arXiv:1509.09308). One point is infinity, where a polynomial's value is
its highest coefficient. The others come in pairs +p, -p, so that two rows of B^T, or two columns of A^T, are what they
share plus and minus the rest; an odd number of them has 0 as well.

Error grows with n and depends on the points (Barabasz et al., arXiv:1803.10986): those for n = 5 and 7 are eighths that
were chosen because theirs is small.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

Matrix = list[list[Fraction]]

PAIRS = {  # by n; all but infinity, and 0 where n is even
    4: ("1",),
    5: ("1/2", "1"),
    6: ("1", "2"),
    7: ("3/8", "7/8", "7/4"),
    8: ("1", "2", "1/2"),
}


def points(n: int) -> list[Fraction]:
    """All points but infinity."""
    paired = [sign * Fraction(p) for p in PAIRS[n] for sign in (1, -1)]
    return paired if n % 2 else [Fraction(0), *paired]


def inputs(n: int) -> Matrix:
    """B^T, n x n: what turns inputs into values at the points.

    Row i has the coefficients of the product of all x - p but that of its own point.
    """
    known = points(n)
    return [[*_product([q for q in known if q != p]), Fraction(0)] for p in known] + [_product(known)]


@cache
def weight(m: int, r: int) -> Matrix:
    """G, n x r: what turns a row of the filter into values at the points."""
    known = points(m + r - 1)
    scales = [math.prod((p - q for q in known if q != p), start=Fraction(1)) for p in known]
    return [[p**j / scale for j in range(r)] for p, scale in zip(known, scales, strict=True)] + [_last(r)]


def output(m: int, r: int) -> Matrix:
    """A^T, m x n: what turns values at the points into outputs."""
    known = points(m + r - 1)
    return [[*(p**k for p in known), last] for k, last in enumerate(_last(m))]


def _product(roots: list[Fraction]) -> list[Fraction]:
    """The coefficients of the polynomial with these roots, the lowest first."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _last(count: int) -> list[Fraction]:
    """The value at infinity of polynomials with so many coefficients."""
    return [Fraction(k == count - 1) for k in range(count)]
