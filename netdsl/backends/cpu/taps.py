"""Where the cells of a convolution's window lie."""

from __future__ import annotations

from dataclasses import dataclass

from netdsl.ops.conv import Conv


@dataclass(frozen=True)
class Taps:
    """Where a window's cells lie relative to an output's origin, in input rows and columns."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def columns_touch(self) -> bool:
        """Whether the columns are neighbours, so that a row of the window is one run in memory."""
        return all(b == a + 1 for a, b in zip(self.columns, self.columns[1:], strict=False))


def taps_of(op: Conv) -> Taps:
    """A convolution's window over its padded input."""
    return Taps(
        tuple(r * op.dilation[0] - op.pad[0] for r in range(op.kernel[0])),
        tuple(s * op.dilation[1] - op.pad[1] for s in range(op.kernel[1])),
    )
