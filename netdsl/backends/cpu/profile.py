"""How long each step of a program takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from netdsl.backends.cpu.machine import roof
from netdsl.backends.cpu.mailbox import ROW_BYTES
from netdsl.backends.cpu.program import F32, Plan, Program, Workspace, places
from netdsl.backends.cpu.threads import team
from netdsl.backends.cpu.views import Address, Argument, Data, Port
from netdsl.graph.ir import Graph
from netdsl.profiles import Profile, Timed

WARM_UP = 2  # chosen: rounds that do not count


def profile(program: Program, inputs: Sequence[F32], rounds: int = 20) -> Profile:
    """Time every step of a program on float32 C-contiguous arrays [N, ...], N at least 1.

    The steps run in order, each round all of them, so that each finds the caches as the one before left them. Of a
    batch larger than `images_at_once`, as many images are profiled.
    """
    images = min(len(inputs[0]), program.images_at_once)
    inputs = [x[:images] for x in inputs]
    plan = program.plan(images)
    workspace = Workspace(plan)
    shapes = [program.graph.nodes[o.node].type.shape for o in program.graph.outputs]
    outputs = [np.empty((images, *shape), np.float32) for shape in shapes]
    workspace.bind(places(inputs), places(outputs))
    calls = [_timed(workspace.go) for _ in range(WARM_UP + rounds)]
    seconds = _step_seconds(workspace, rounds)
    ceiling = roof(program.threads)
    macs, whole = _macs(program.graph, plan), sum(seconds) or 1.0
    ops = {node.path: node.op.name for node in program.graph}
    steps = []
    for step, lasts, share, work in zip(plan.steps, seconds, plan.shares, macs, strict=True):
        part = 2 * work / lasts / ceiling.flops if lasts else 0.0
        moved = sum(_bytes(a, images, program.graph) for a in step.arguments.values())
        steps.append(Timed(step.node, ops[step.node], step.kernel.name, lasts, lasts / whole, share, work, moved, part))
    median = statistics.median(calls[WARM_UP:])
    return Profile(program.graph.name, images, rounds, ceiling, tuple(steps), median)


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _step_seconds(workspace: Workspace, rounds: int) -> list[float]:
    """The median time of each step of a workspace's plan, all turns of it, less what starting it from Python costs."""
    table = workspace.table.copy()
    table[:, 3] = 1  # a barrier ends each row, as it is a call of its own
    starts = [(table.ctypes.data + ROW_BYTES * i, int(share)) for i, share in enumerate(table[:, 2])]
    run, clock = team().run, time.perf_counter
    found: list[list[float]] = [[] for _ in starts]
    for _ in range(WARM_UP + rounds):
        for times, (row, threads) in zip(found, starts, strict=True):
            started = clock()
            run(row, 1, threads)
            times.append(clock() - started)
    cost = {threads: _starting_cost(table.ctypes.data, threads) for _, threads in starts}
    seconds = [0.0] * len(workspace.plan.steps)
    for (step, _), times, (_, threads) in zip(workspace.plan.order, found, starts, strict=True):
        seconds[step] += max(0.0, statistics.median(times[WARM_UP:]) - cost[threads])
    return seconds


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
