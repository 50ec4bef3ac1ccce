"""Programs run by numba.cuda's simulator, in a process of its own: numba.cuda chooses it when it is imported."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from netdsl.graph.ir import Graph

Arrays = Sequence[np.ndarray[Any, Any]]


def _enter() -> None:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    np.seterr(all="ignore")
    from turns import take_turns

    take_turns()


def _run(graph: Graph, weights: Mapping[str, Any], calls: Sequence[Arrays], precision: str) -> list[list[Any]]:
    from netdsl.backends.cuda import program as cuda

    program = cuda.lower(graph, weights, precision=precision)
    return [program(list(inputs)) for inputs in calls]


class Simulator:
    """Runs graphs one after another in one process."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(
        self, graph: Graph, weights: Mapping[str, Any], *calls: Arrays, precision: str = "float32"
    ) -> list[list[Any]]:
        """The outputs of each call of one program."""
        return self._pool.submit(_run, graph, dict(weights), calls, precision).result()

    def apply(self, function: Any, *arguments: Any) -> Any:
        """The result of a module-level function there."""
        return self._pool.submit(function, *arguments).result()


@contextmanager
def simulator(enter: Callable[[], None] = _enter) -> Iterator[Simulator]:
    """A process that `enter` prepares."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), enter) as pool:
        yield Simulator(pool)
