"""The simulator as these tests run it: barriers hold, and what lacks one fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from simulated import Simulator


def neighbours(barrier: bool, across: int) -> np.ndarray[Any, Any]:
    import barriers

    return barriers.neighbours(barrier, across)


def failing(thread: int) -> None:
    import barriers

    barriers.failing(thread)


@pytest.mark.parametrize("across", [1, 5, 23])
def test_barriers_hold(simulate: Simulator, across: int) -> None:
    at = np.arange(24)
    expected = np.tile(np.float32(at + (at + across) % 24), (2, 2, 1))
    expected[:, 0, 1::2] += 0.5
    np.testing.assert_array_equal(simulate.apply(neighbours, True, across), expected)


@pytest.mark.parametrize("across", [1, 23])
def test_a_missing_barrier_shows(simulate: Simulator, across: int) -> None:
    assert (simulate.apply(neighbours, False, across) < 0).any()


@pytest.mark.parametrize("thread", [0, 23])
def test_a_thread_that_fails_ends_its_block(simulate: Simulator, thread: int) -> None:
    with pytest.raises(ValueError, match="this thread fails"):
        simulate.apply(failing, thread)
    test_barriers_hold(simulate, 1)
