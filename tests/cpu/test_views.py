"""Where tensors lie in memory."""

from __future__ import annotations

from collections import Counter

import pytest

from netdsl.backends.cpu.mailbox import LINE
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.views import Halo, layout
from netdsl.tensor import TensorType

SETS = 64  # of cache lines, of the first-level caches of x86 processors


@pytest.mark.parametrize("side", [28, 56, 112])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("halo", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_what_a_tile_reads_lies_in_different_sets(side: int, stride: int, halo: Halo) -> None:
    """7 pixels of 8 blocks of channels."""
    view, _ = layout(TensorType((8 * WIDTH, side, side)), WIDTH, halo)
    places = [view.start + k * view.plane + q * stride * view.pixel for k in range(8) for q in range(7)]
    sets = Counter(line % SETS for line in {at // LINE for at in places})
    assert max(sets.values()) <= 2


def test_planes_hold_their_pixels_and_halo() -> None:
    for side in (1, 7, 11, 12, 31, 64):
        view, image = layout(TensorType((3 * WIDTH, side, side + 1)), WIDTH, (1, 2, 0, 1))
        assert view.row == (side + 4) * view.pixel
        assert (side + 1) * view.row <= view.plane <= (side + 1) * view.row + 16 * LINE
        assert image == 3 * view.plane and view.plane % view.pixel == 0
