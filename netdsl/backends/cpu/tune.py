"""Measuring which algorithm runs each convolution of a network fastest on this machine.

The whole network is planned once for each way of running a convolution, direct or one of Winograd's. The plans take
turns, step by step, so that each layer finds the caches as its neighbours leave them. A layer's choice changes only
where that saves LEAST_GAIN of its time, and all changes are dropped where the whole network is no faster with them:
what is kept is never slower than the default, as measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu import jit, tuned
from netdsl.backends.cpu.bank import WeightBank
from netdsl.backends.cpu.demands import reads_alone, winograd_sizes
from netdsl.backends.cpu.mailbox import ROW_BYTES
from netdsl.backends.cpu.program import Workspace, executors, images_at_once, make_plan, places
from netdsl.backends.cpu.threads import available_threads, team
from netdsl.backends.cpu.winograd import phases_of, ways_to_run
from netdsl.graph.ir import Graph
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.passes import rewrite

LEAST_GAIN = 0.03  # chosen: two runs of the same differ by about as much
WARM_UP = 2  # chosen: rounds that do not count
# m + r - 1 of algorithms tried; those with more, whose error is larger, only where the model chose them
MOST_POINTS = 7

Timer = Callable[[Workspace, int | None], float]  # seconds of a row of a workspace's table, or (None) of all


@dataclass(frozen=True)
class Layer:
    """Convolutions of one geometry.

    default, best  0: direct; m: Winograd's F(m x m, r x r)
    seconds        of all of them together in a call, by way to run them
    """

    geometry: str
    paths: tuple[str, ...]
    default: int
    best: int
    seconds: Mapping[int, float]


@dataclass(frozen=True)
class Tuning:
    """What was measured of a network, and what is kept of it.

    before, after  seconds of a whole call with the default and with the choices; equal where nothing changes
    file           where choices are kept
    """

    network: str
    images: int
    threads: int
    layers: tuple[Layer, ...]
    before: float
    after: float
    file: Path

    @property
    def changes(self) -> dict[str, int]:
        """What is kept, by geometry."""
        return {layer.geometry: layer.best for layer in self.layers if layer.best != layer.default}


def measured(workspace: Workspace, row: int | None) -> float:
    """The time of one row of a workspace's table, or of all."""
    at, steps, threads = workspace.table_address, workspace.steps, workspace.threads
    if row is not None:
        at, steps, threads = at + ROW_BYTES * row, 1, int(workspace.table[row, 2])
    run = team().run
    started = time.perf_counter()
    run(at, steps, threads)
    return time.perf_counter() - started


def tune(
    graph: Graph, weights: Mapping[str, NDArray[Any]], images: int = 1, threads: int | None = None, rounds: int = 20,
    progress: jit.Progress | None = None, timer: Timer = measured,
) -> Tuning:  # fmt: skip
    """Measure a graph for a batch size, and keep what was found. Raises OSError where it cannot be kept.

    progress  told of kernels to compile and of rounds
    """
    threads = min(threads or available_threads(), available_threads())
    bench = Bench(rewrite(graph), WeightBank(weights), images, threads)
    file = tuned.path(threads)
    if not bench.where:
        return Tuning(graph.name, bench.images, threads, (), 0.0, 0.0, file)
    default = winograd_sizes(bench.graph, bench.images, False)
    tried = {i: bench.tried(i, default.get(i, 0)) for i in bench.where}
    ways = {
        m: bench.workspace({i: m if m in tried[i] else default.get(i, 0) for i in tried}, progress)
        for m in sorted({m for some in tried.values() for m in some})
    }
    times = _step_times(ways, [bench.graph.nodes[i].path for i in bench.where], rounds, timer, progress)
    layers = _layers(bench, default, tried, times)
    chosen = {i: m for layer in layers for i in bench.nodes(layer) if (m := layer.best)}
    before, after = _whole_times([bench.workspace(default), bench.workspace(chosen, progress)], rounds, timer)
    if after >= before:
        layers = tuple(replace(layer, best=layer.default) for layer in layers)
        after = before
    found = Tuning(graph.name, bench.images, threads, layers, before, after, file)
    tuned.keep(threads, found.changes, bench.where.values())
    return found


class Bench:
    """A network with its weights and noise to run on, and where its convolutions with several ways to run are.

    where  the geometry of those by node
    """

    def __init__(self, graph: Graph, bank: WeightBank, images: int, threads: int) -> None:
        self.graph, self._bank, self._threads = graph, bank, threads
        self.images = min(images, images_at_once(make_plan(graph, bank, 1, threads, exact=True)))
        self.where = {
            i: tuned.geometry(node.op, x, self.images)
            for i, node in enumerate(graph.nodes)
            if isinstance(node.op, Conv | Deconv)
            and len(ways_to_run(node.op, x := graph.nodes[node.inputs[0]].type, reads_alone(graph, i))) > 1
        }
        rng = np.random.default_rng(0)
        shapes = [(self.images, *spec.type.shape) for spec in graph.inputs]
        self._inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]
        self._outputs = [np.empty((self.images, *graph.nodes[o.node].type.shape), np.float32) for o in graph.outputs]

    def tried(self, index: int, default: int) -> list[int]:
        """The ways that are measured for a convolution."""
        node = self.graph.nodes[index]
        assert isinstance(node.op, Conv | Deconv)
        ways = ways_to_run(node.op, self.graph.nodes[node.inputs[0]].type, reads_alone(self.graph, index))
        return [m for m in ways if m + phases_of(node.op).taps - 1 <= MOST_POINTS or m == default]

    def nodes(self, layer: Layer) -> list[int]:
        return [i for i, geometry in self.where.items() if geometry == layer.geometry]

    def workspace(self, winograd: Mapping[int, int], progress: jit.Progress | None = None) -> Workspace:
        """The network with a way to run each convolution by node, ready to run as a whole or step by step."""
        sizes = {i: m for i, m in winograd.items() if m}
        plan = make_plan(self.graph, self._bank, self.images, self._threads, winograd=sizes)
        told = progress and (lambda kernel, done, total: progress("compiling kernels", done, total))
        jit.load_all([*executors([plan]), *(step.kernel for step in plan.steps)], told)
        workspace = Workspace(plan)
        workspace.table[:, 3] = 1  # a barrier ends each row, as it may be a call of its own
        workspace.bind(places(self._inputs), places(self._outputs))
        return workspace


def _layers(
    bench: Bench, default: Mapping[int, int], tried: Mapping[int, Iterable[int]],
    times: Mapping[int, Mapping[str, float]],
) -> tuple[Layer, ...]:  # fmt: skip
    """What was measured and what is best, by geometry."""
    layers = []
    for geometry in dict.fromkeys(bench.where.values()):
        same = [i for i, g in bench.where.items() if g == geometry]
        paths = tuple(bench.graph.nodes[i].path for i in same)
        own = default.get(same[0], 0)
        seconds = {m: sum(times[m][path] for path in paths) for m in tried[same[0]]}
        best = min(seconds, key=lambda m: seconds[m])
        best = best if seconds[best] < (1 - LEAST_GAIN) * seconds[own] else own
        layers.append(Layer(geometry, paths, own, best, seconds))
    return tuple(layers)


def _step_times(
    desks: Mapping[int, Workspace], paths: Sequence[str], rounds: int, timer: Timer, progress: jit.Progress | None
) -> dict[int, dict[str, float]]:
    """The median seconds of each convolution, by way to run it and path. All steps run, as in a call."""
    found: dict[int, dict[str, list[float]]] = {m: {path: [] for path in paths} for m in desks}
    order = list(desks)
    for r in range(WARM_UP + rounds):
        if progress:
            progress("measuring", r, WARM_UP + rounds)
        for m in order[r % len(order) :] + order[: r % len(order)]:
            taken = dict.fromkeys(paths, 0.0)
            for row, (i, _) in enumerate(desks[m].plan.order):
                seconds, step = timer(desks[m], row), desks[m].plan.steps[i]
                if step.node in taken and step.kernel.module in ("conv", "winograd"):
                    taken[step.node] += seconds
            for path, seconds in taken.items() if r >= WARM_UP else ():
                found[m][path].append(seconds)
    return {m: {path: statistics.median(times) for path, times in of.items()} for m, of in found.items()}


def _whole_times(desks: Sequence[Workspace], rounds: int, timer: Timer) -> tuple[float, float]:
    """The median seconds of whole calls, in turns."""
    found: tuple[list[float], list[float]] = [], []
    for r in range(WARM_UP + rounds):
        for k in (0, 1) if r % 2 else (1, 0):
            found[k].append(timer(desks[k], None))
    return statistics.median(found[0][WARM_UP:]), statistics.median(found[1][WARM_UP:])
