"""Strided convolutions as sums of convolutions of stride 1, one for each phase of the input (polyphase decomposition).

With stride s, phase (a, b) of a map holds the pixels (s i + a - top, s j + b - left), zeros where those lie outside.
A filter of R x R cells falls apart in the same way: phase a of its rows has ceil((R - a) / s) taps, that is r or r - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from netdsl.backends.cpu.target import WIDTH
from netdsl.tensor import TensorType


def in_lanes(x: TensorType) -> bool:
    """Whether a map has so few channels that its phases lie side by side in the lanes of one map."""
    return x.channels < WIDTH


@dataclass(frozen=True)
class Phases:
    """Those of a square filter and stride: kernel > stride, or one phase where the stride is 1."""

    kernel: int
    stride: int

    @property
    def taps(self) -> int:
        """The most rows or columns of a phase's filter, r."""
        return math.ceil(self.kernel / self.stride)

    @property
    def whole(self) -> int:
        """How many phases of the rows, the first ones, have r taps; the others have one less."""
        return self.kernel - (self.taps - 1) * self.stride

    @property
    def order(self) -> list[tuple[int, int]]:
        """All phases (a, b): those with r taps along rows, along columns, or along both, each follow one another."""
        whole, short = range(self.whole), range(self.whole, self.stride)
        groups = ((whole, short), (whole, whole), (short, whole), (short, short))
        return [(a, b) for rows, columns in groups for a in rows for b in columns]

    @property
    def whole_ones(self) -> tuple[int, int, int]:
        """Phases before the first number have r taps along rows, those from the second to the third along columns."""
        short, side = self.whole * (self.stride - self.whole), self.whole * self.whole
        return short + side, short, 2 * short + side

    def live(self, points: int) -> list[tuple[int, int]]:
        """For each of points x points products of Winograd's algorithm, the first phase that has it and the one after.

        The last point is infinity, where a polynomial's value is its highest coefficient: the r-th tap.
        """
        tall, first_wide, last_wide = self.whole_ones
        found = []
        for i in range(points):
            for j in range(points):
                first, last = (first_wide, last_wide) if j == points - 1 else (0, self.stride**2)
                found.append((first, min(last, tall) if i == points - 1 else last))
        return found
