"""The matrices of Winograd's minimal filtering F(m x m, r x r), which evaluates polynomials at n = m + r - 1 points.

A^T [(G g G^T) * (B^T d B)] A gives an m x m patch of outputs of an r x r convolution from an n x n patch of inputs with
n^2 products instead of r^2 m^2. Source: Lavin and Gray, arXiv:1509.09308, whose matrices for r = 3 these are.
B^T depends on the points alone: 0, 1, -1 and infinity for n = 4, besides 2, -2 for n = 6, and 1/2, -1/2 for n = 8.
Error grows with n (Barabasz et al., arXiv:1803.10986).
"""

from __future__ import annotations

from fractions import Fraction

Matrix = list[list[float]]

_POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]
_FACTORS = {  # what B^T leaves to the other two: G[i][j] A^T[k][i] = factor * point ** (j + k)
    4: [Fraction(f) for f in ("1", "1/2", "1/2")],
    6: [Fraction(f) for f in ("1/4", "-1/6", "-1/6", "1/24", "1/24")],
    8: [Fraction(f) for f in ("1", "-2/9", "-2/9", "1/90", "1/90", "32/45", "32/45")],
}

INPUT: dict[int, Matrix] = {  # B^T by n
    4: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]],
    6: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    8: [
        [1, 0, -21 / 4, 0, 21 / 4, 0, -1, 0],
        [0, 1, 1, -17 / 4, -17 / 4, 1, 1, 0],
        [0, -1, 1, 17 / 4, -17 / 4, -1, 1, 0],
        [0, 1 / 2, 1 / 4, -5 / 2, -5 / 4, 2, 1, 0],
        [0, -1 / 2, 1 / 4, 5 / 2, -5 / 4, -2, 1, 0],
        [0, 2, 4, -5 / 2, -5, 1 / 2, 1, 0],
        [0, -2, 4, 5 / 2, -5, -1 / 2, 1, 0],
        [0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1],
    ],
}


def weight(m: int, r: int) -> Matrix:
    """G, n x r: what turns a row of the filter into values at the points."""
    factors = zip(_FACTORS[m + r - 1], _POINTS, strict=False)
    return [[float(f / _lift(p, m) * p**j) for j in range(r)] for f, p in factors] + [[0.0] * (r - 1) + [1.0]]


def output(m: int, r: int) -> Matrix:
    """A^T, m x n: what turns values at the points into outputs."""
    points = _POINTS[: m + r - 2]
    return [[*(float(_lift(p, m) * p**k) for p in points), float(k == m - 1)] for k in range(m)]


def _lift(point: Fraction, m: int) -> Fraction:
    """What makes the powers of a point below 1 whole numbers."""
    return abs(point) ** (1 - m) if 0 < abs(point) < 1 else Fraction(1)
