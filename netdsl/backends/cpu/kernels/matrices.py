"""The matrices of Winograd's minimal filtering F(m x m, r x r), which evaluates polynomials at n = m + r - 1 points.

A^T [(G g G^T) * (B^T d B)] A gives an m x m patch of outputs of an r x r convolution from an n x n patch of inputs with
n^2 products instead of r^2 m^2. Source: Lavin and Gray, arXiv:1509.09308, whose matrices for r = 3 these are.
B^T depends on the points alone: 0, 1, -1 and infinity for n = 4, and 2, -2 for n = 6, and 1/2 for n = 7, and -1/2 for
n = 8.
Error grows with n (Barabasz et al., arXiv:1803.10986).
"""

from __future__ import annotations

from fractions import Fraction

Matrix = list[list[float]]

_POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]
_FACTORS = {  # what B^T leaves to the other two: G[i][j] A^T[k][i] = factor * point ** (j + k)
    4: [Fraction(f) for f in ("1", "1/2", "1/2")],
    6: [Fraction(f) for f in ("1/4", "-1/6", "-1/6", "1/24", "1/24")],
    7: [Fraction(f) for f in ("-1/2", "-1/3", "1/9", "1/36", "-1/60", "32/45")],
    8: [Fraction(f) for f in ("1", "-2/9", "-2/9", "1/90", "1/90", "32/45", "32/45")],
}

_INPUT: dict[int, Matrix] = {  # B^T by n
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


def input_stages(n: int) -> tuple[Matrix, ...]:
    """B^T, n x n, as a product of matrices, the last of which is the first to be applied.

    An odd point p = 1/2 has no partner: values at the other points are those for n - 1 of d[k + 1] - p d[k], and the
    value at p is the one at infinity for n - 1 of d itself.
    """
    if n % 2 == 0:
        return (_INPUT[n],)
    others, point = _INPUT[n - 1], float(_POINTS[n - 2])
    differences = [[-point * (j == k) + (j == k + 1) for j in range(n)] for k in range(n - 1)]
    values = [[*row, 0.0] for row in others]
    at_point = [*others[-1], 0.0]
    return [*values[:-1], [0.0] * (n - 1) + [1.0], values[-1]], [*differences, at_point]


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
