"""The matrices of Winograd's minimal filtering F(m x m, 3 x 3), by m.

A^T [(G g G^T) * (B^T d B)] A gives an m x m patch of outputs of a 3x3 convolution from an (m+2) x (m+2) patch of
inputs with (m+2)^2 products instead of 9 m^2. Source: Lavin and Gray, arXiv:1509.09308; interpolation points 0, 1, -1
for m = 2, and 2, -2 for m = 4, and 1/2, -1/2 for m = 6 besides. Error grows with m (Barabasz et al., arXiv:1803.10986).
"""

from __future__ import annotations

_HALF, _QUARTER = 0.5, 0.25

INPUT: dict[int, list[list[float]]] = {  # B^T
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    6: [
        [1, 0, -21 / 4, 0, 21 / 4, 0, -1, 0],
        [0, 1, 1, -17 / 4, -17 / 4, 1, 1, 0],
        [0, -1, 1, 17 / 4, -17 / 4, -1, 1, 0],
        [0, _HALF, _QUARTER, -5 / 2, -5 / 4, 2, 1, 0],
        [0, -_HALF, _QUARTER, 5 / 2, -5 / 4, -2, 1, 0],
        [0, 2, 4, -5 / 2, -5, _HALF, 1, 0],
        [0, -2, 4, 5 / 2, -5, -_HALF, 1, 0],
        [0, -1, 0, 21 / 4, 0, -21 / 4, 0, 1],
    ],
}
WEIGHT: dict[int, list[list[float]]] = {  # G
    2: [[1, 0, 0], [_HALF, _HALF, _HALF], [_HALF, -_HALF, _HALF], [0, 0, 1]],
    4: [
        [_QUARTER, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    6: [
        [1, 0, 0],
        [-2 / 9, -2 / 9, -2 / 9],
        [-2 / 9, 2 / 9, -2 / 9],
        [1 / 90, 1 / 45, 2 / 45],
        [1 / 90, -1 / 45, 2 / 45],
        [1 / 45, 1 / 90, 1 / 180],
        [1 / 45, -1 / 90, 1 / 180],
        [0, 0, 1],
    ],
}
OUTPUT: dict[int, list[list[float]]] = {  # A^T
    2: [[1, 1, 1, 0], [0, 1, -1, 1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    6: [
        [1, 1, 1, 1, 1, 32, 32, 0],
        [0, 1, -1, 2, -2, 16, -16, 0],
        [0, 1, 1, 4, 4, 8, 8, 0],
        [0, 1, -1, 8, -8, 4, -4, 0],
        [0, 1, 1, 16, 16, 2, 2, 0],
        [0, 1, -1, 32, -32, 1, -1, 1],
    ],
}
