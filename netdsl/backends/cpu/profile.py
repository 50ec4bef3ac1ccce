"""How long each step of a program takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from netdsl.backends.cpu.machine import bandwidth, peak_meter
from netdsl.backends.cpu.mailbox import ROW_BYTES
from netdsl.backends.cpu.program import F32, Plan, Program, Workspace, places
from netdsl.backends.cpu.threads import team
from netdsl.backends.cpu.views import Address, Argument, Data, Port
from netdsl.graph.ir import Graph
from netdsl.profiles import Profile, Roof, Timed

WARM_UP = 2  # chosen: calls that do not count
MOST_PEAKS = 5  # chosen: together some 10 milliseconds; with fewer rounds, one before each


def profile(program: Program, inputs: Sequence[F32], rounds: int = 20) -> Profile:
    """Time every step of a program on float32 C-contiguous arrays [N, ...], N at least 1.

    The steps run in order, each round all of them, so that each finds the caches as the one before left them. The
    machine's peak is measured between the rounds, as its speed may change meanwhile; its median counts. Of a batch
    larger than `images_at_once`, as many images are profiled.
    """
    bound, peak = Stepper(program, inputs), peak_meter(program.threads)
    calls = [bound.call() for _ in range(WARM_UP + rounds)]
    peaks, times = [], []
    for i in range(rounds):
        if i % -(-rounds // MOST_PEAKS) == 0:
            peaks.append(peak())
            bound.steps()  # does not count: after a pause a small network's take twice as long
        times.append(bound.steps())
    seconds = [statistics.median(of) for of in zip(*times, strict=True)]
    ceiling = Roof(program.threads, statistics.median(peaks), bandwidth(program.threads))
    macs, whole = _macs(program.graph, bound.plan), sum(seconds) or 1.0
    ops = {node.path: node.op.name for node in program.graph}
    steps = []
    for step, lasts, share, work in zip(bound.plan.steps, seconds, bound.plan.shares, macs, strict=True):
        part = 2 * work / lasts / ceiling.flops if lasts else 0.0
        moved = sum(_bytes(a, bound.plan.images, program.graph) for a in step.arguments.values())
        steps.append(Timed(step.node, ops[step.node], step.kernel.name, lasts, lasts / whole, share, work, moved, part))
    median = statistics.median(calls[WARM_UP:])
    return Profile(program.graph.name, bound.plan.images, rounds, ceiling, tuple(steps), median)


class Stepper:
    """A program bound to inputs [N, ...], N at least 1, to be called as a whole or step by step; times in seconds."""

    def __init__(self, program: Program, inputs: Sequence[F32]) -> None:
        images = min(len(inputs[0]), program.images_at_once)
        self._inputs = [x[:images] for x in inputs]
        shapes = [program.graph.nodes[o.node].type.shape for o in program.graph.outputs]
        self._outputs = [np.empty((images, *shape), np.float32) for shape in shapes]
        self.plan = program.plan(images)
        self._workspace = Workspace(self.plan)
        self._workspace.bind(places(self._inputs), places(self._outputs))
        self._table = self._workspace.table.copy()
        self._table[:, 3] = 1  # a barrier ends each row, as it is a call of its own
        shares = [int(share) for share in self._table[:, 2]]
        cost = {threads: _starting_cost(self._table.ctypes.data, threads) for threads in set(shares)}
        self._rows = [
            (step, self._table.ctypes.data + ROW_BYTES * i, share, cost[share])
            for i, ((step, _), share) in enumerate(zip(self.plan.order, shares, strict=True))
        ]

    def call(self) -> float:
        """The time of a call."""
        return _timed(self._workspace.go)

    def steps(self) -> list[float]:
        """The time of each step, all turns of it, less what starting it from Python costs."""
        run, clock = team().run, time.perf_counter
        seconds = [0.0] * len(self.plan.steps)
        for step, row, threads, cost in self._rows:
            started = clock()
            run(row, 1, threads)
            seconds[step] += max(0.0, clock() - started - cost)
        return seconds


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _starting_cost(table: int, threads: int) -> float:
    """Seconds that a call of no steps at all takes."""
    run = team().run
    return statistics.median(_timed(lambda: run(table, 0, threads)) for _ in range(100))


def _macs(graph: Graph, plan: Plan) -> list[int]:
    """Multiply-accumulates of each step, for the whole batch.

    A layer's are shared by its steps in proportion to their work; steps that only move data have none. A layer without
    a step of its own is computed by the next that has one.
    """
    steps: dict[str, list[int]] = {}
    for i, step in enumerate(plan.steps):
        if step.kernel.module != "move":
            steps.setdefault(step.node, []).append(i)
    out = [0] * len(plan.steps)
    waiting = 0
    for node in graph:
        waiting += graph.node_macs(node) * plan.images
        own = steps.get(node.path, ())
        total = sum(plan.steps[i].work for i in own)
        for i in own:
            out[i] = waiting * plan.steps[i].work // total
        waiting = 0 if own else waiting
    return out


def _bytes(argument: Argument, images: int, graph: Graph) -> int:
    """Bytes that an argument stands for: the pixels of a view, constant values, an array of the caller's."""
    if isinstance(argument, Data):
        return argument.values.nbytes
    if isinstance(argument, Address):
        view = argument.view
        return 4 * view.block * view.blocks * view.height * view.width * (images if view.image else 1)
    if isinstance(argument, Port):
        spec = (graph.outputs if argument.is_output else graph.inputs)[argument.index]
        return 4 * images * math.prod(graph.nodes[spec.node].type.shape)
    return 0
