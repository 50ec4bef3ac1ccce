"""Threads that share a step's parts: each part is computed once, whoever takes it."""

from __future__ import annotations

import numpy as np
import pytest

from fresh import in_fresh_process
from netdsl.backends.cpu import jit
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.threads import _own_processor, team
from netdsl.backends.cpu.tiles import Share, share_for, wanted
from netdsl.backends.cpu.views import aligned

ROWS, TIMES = 192, 300


def _adding(total: np.ndarray, one: np.ndarray, limits: np.ndarray) -> tuple[int, np.ndarray]:
    """The kernel that adds `one` to every vector of `total`, in ROWS units, and its argument block."""
    address, parameters = jit.load(jit.Kernel("elementwise", "binary", ("add",)))
    given = dict.fromkeys(parameters, 0)
    given |= {"a": total.ctypes.data, "b": one.ctypes.data, "y": total.ctypes.data, "limits": limits.ctypes.data}
    given |= {"images": 1, "blocks": 1, "height": ROWS, "width": 1, "a_row": 4 * WIDTH, "y_row": 4 * WIDTH}
    return address, np.array([given[p] for p in parameters], np.int64)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("parts", [1, 2, 7, 64, 192, 1000])
def test_every_part_of_a_step_is_computed_once(threads: int, parts: int) -> None:
    """More threads than processors: some come late, and others take what is theirs."""
    total, one, limits = aligned(ROWS * WIDTH), aligned(WIDTH), np.array([-np.inf, np.inf], np.float32)
    total[:], one[:] = 0.0, 1.0
    kernel, block = _adding(total, one, limits)
    rows = [(kernel, block.ctypes.data, active, 1, parts) for active in (threads, 1, threads, max(1, threads - 1))]
    table = np.array(rows, np.int64)
    for _ in range(TIMES):
        team().run(table.ctypes.data, len(rows), threads)
    assert np.unique(total).tolist() == [len(rows) * TIMES]


@pytest.mark.parametrize("threads", [2, 3, 4, 7])
@pytest.mark.parametrize(("lines", "tiles", "groups"), [(56, 8, 4), (28, 1, 16), (7, 1, 8), (1, 1, 32), (448, 4, 1)])
def test_a_convolution_is_cut_finely_where_it_can_be(threads: int, lines: int, tiles: int, groups: int) -> None:
    share = share_for(lines, tiles, groups, 800_000, 1_000_000, threads)
    assert share.bands <= lines and share.chunks <= groups and 1 <= share.together <= share.bands
    assert share.bands * share.chunks >= min(groups, wanted(threads) // 2)


def test_one_thread_shares_with_nobody() -> None:
    assert share_for(56, 8, 4, 200_000, 100_000, 1) == Share(1, 1, 1)
    assert wanted(1) == 1


KEPT = """
    import os, time
    import numpy as np
    import netdsl
    from netdsl.backends.cpu import threads

    model, image = netdsl.compile("resnet20_cifar10", "random", "cpu", 3), np.zeros((1, 3, 32, 32), np.float32)
    model(image)
    allowed = os.sched_getaffinity(0)
    for use in (allowed, {min(allowed)}):
        os.sched_setaffinity(0, use)
        time.sleep(0.5)  # the workers sleep by then, and are woken
        model(image)
        for kept in map(os.sched_getaffinity, threads.team()._workers.values()):
            assert kept <= use and len(kept) == max(1, len(use) - 1), (kept, use)
    assert len(threads.team()._workers) == min(3, len(allowed)) - 1
    print("kept")
"""


@pytest.mark.skipif(_own_processor is None, reason="the system does not say which processor a thread runs on")
def test_workers_are_woken_on_the_callers_processors_but_not_on_its_own() -> None:
    done = in_fresh_process(KEPT)
    assert done.stdout == "kept\n", done.stderr
