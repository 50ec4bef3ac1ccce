"""What a network needs on this processor, known before its weights are: its kernels and its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl import kept
from netdsl.backends.cpu import jit
from netdsl.backends.cpu.bank import WeightBank
from netdsl.backends.cpu.precision import check_precision
from netdsl.backends.cpu.program import Plan, executors, images_at_once, make_plan, make_plans
from netdsl.backends.cpu.threads import available_threads
from netdsl.backends.cpu.views import Data
from netdsl.errors import InputError
from netdsl.graph.ir import Graph
from netdsl.passes import rewrite


class NoWeights(WeightBank):
    """A bank that packs nothing: for plans that are never run."""

    def __init__(self, precision: str = "float32") -> None:
        super().__init__({}, precision)

    def pack(self, key: tuple[Any, ...], make: Callable[[], NDArray[np.float32]]) -> Data:
        return Data(np.zeros(0, np.float32))


def plan_ahead(graph: Graph, images: int = 1, threads: int | None = None) -> Plan:
    """The plan of a graph (not yet rewritten) for looking at."""
    return make_plan(rewrite(graph), NoWeights(), images, threads or available_threads())


def kernels(graph: Graph, images: int = 1, threads: int | None = None, precision: str = "float32") -> list[jit.Kernel]:
    """Every kernel that a batch of so many images needs, each once."""
    most = images_at_once(plan_ahead(graph, 1, threads))
    turns = {1, min(images, most), images % most} - {0}
    rewritten, most_threads = rewrite(graph), threads or available_threads()
    plans = [make_plans(rewritten, NoWeights(precision), n, most_threads) for n in turns]
    steps = [s.kernel for together in plans for plan in together for s in plan.steps]
    return list(dict.fromkeys([k for together in plans for k in executors(together)] + steps))


def warm(
    graphs: Iterable[Graph], images: int, threads: int | None, progress: jit.Progress | None,
    precision: str = "float32",
) -> tuple[int, int]:  # fmt: skip
    """Compile into the cache what graphs need: how many kernels that is, and how many of them were not there.

    Raises InputError where the cache does not keep them.
    """
    check_precision(precision)
    needed = list(dict.fromkeys(k for graph in graphs for k in kernels(graph, images, threads, precision)))
    missing = [k for k in needed if not jit.is_kept(k)]
    if missing:
        _check_cache()
        jit.load_all(missing, progress)
        for kernel in missing:
            jit.load(kernel)  # also where a damaged file took its place
    if lost := sum(not jit.is_kept(k) for k in missing):
        raise _unkept(f"{lost} of {len(missing)} compiled kernels could not be kept")
    return len(needed), len(missing)


def _check_cache() -> None:
    """Raise InputError, before minutes are spent compiling, where nothing can be kept."""
    try:
        kept.check_writable(kept.folder("kernels"))
    except OSError as error:
        raise _unkept(f"compiled kernels cannot be kept here ({error.strerror or error})") from error


def _unkept(message: str) -> InputError:
    hint = "NETDSL_CACHE names another folder"
    return InputError(message, code="cannot-write", path=str(kept.folder("kernels")), hint=hint)
