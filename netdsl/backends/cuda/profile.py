"""How long each step of a program takes on the GPU, by its own clock."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from netdsl.backends.cuda import device
from netdsl.backends.cuda.program import F32, Plan, Program
from netdsl.backends.cuda.steps import BLOCK, Geometry, Kernel, block_each, one_each
from netdsl.backends.cuda.views import Address, Argument, Data, Port
from netdsl.errors import DeviceError
from netdsl.graph.ir import Graph
from netdsl.profiles import Phases, Profile, Roof, Timed

WARM_UP = 2  # chosen: rounds that do not count
REPEATS = 10  # chosen: launches of a step that are timed together, so that none waits for the host
COPIED_FLOATS = 1 << 28  # chosen: 1 GiB, beyond any cache
CHAIN_STEPS = 1 << 14  # chosen: a run of a millisecond or more
RUNS = 10  # chosen: the best of so many runs counts, as a ceiling is meant
TENSOR_FLOP = {
    "tf32": 2 * 8 * 16 * 8 * 8,
    "float16": 2 * 8 * 16 * 8 * 16,
    "bfloat16": 2 * 8 * 16 * 8 * 16,
}  # warp, step
WAVES = 32  # chosen: blocks for each multiprocessor


def profile(program: Program, inputs: Sequence[F32], rounds: int = 20) -> Profile:
    """Time every step of a program on float32 C-contiguous arrays [N, ...], N at least 1.

    A step is launched several times in a row as one graph, between two events; so it finds its data in the cache where
    they fit. The whole call is timed likewise, without the copies from and to the host. Of a batch that goes through
    the layers in turns, the first turn is profiled. Errors: DeviceError in the simulator, which has no clock.
    """
    _need_clock(program)
    images = min(len(inputs[0]), program.images_at_once)
    plan = program.plan(images)
    workspace = program.workspace(images)
    outputs = [np.empty(images * math.prod(shape), np.float32) for shape in program.shapes]
    workspace.call([x[:images].reshape(-1) for x in inputs], outputs)
    clock = partial(_seconds, workspace.stream, rounds)
    seconds = [clock(partial(workspace.queue, i, i + 1), REPEATS) for i in range(len(plan.steps))]
    call = clock(partial(workspace.queue, 0, len(plan.steps)), 1)
    ceiling = roof(program.precision)
    macs, whole = _macs(program.graph, plan), sum(seconds)
    ops = {node.path: node.op.name for node in program.graph}
    steps = []
    for step, lasts, work in zip(plan.steps, seconds, macs, strict=True):
        moved = sum(_bytes(a, images, program.graph) for a in step.arguments.values())
        part = 2 * work / lasts / ceiling.flops
        steps.append(Timed(step.node, ops[step.node], step.kernel.name, lasts, lasts / whole, 1, work, moved, part))
    return Profile(program.graph.name, images, rounds, ceiling, tuple(steps), call)


def phases(program: Program, inputs: Sequence[F32], rounds: int = 20) -> Phases:
    """The median times of the parts of a call on float32 C-contiguous arrays [N, ...] of the host, N at least 1.

    Errors: DeviceError in the simulator, which has no clock.
    """
    _need_clock(program)
    found = [program.phases(inputs) for _ in range(WARM_UP + rounds)][WARM_UP:]
    parts = zip(*((p.to_device, p.compute, p.from_device) for p in found), strict=True)
    return Phases(*map(statistics.median, parts))


def _need_clock(program: Program) -> None:
    if program.device.simulated:
        raise DeviceError("the simulator of numba.cuda has no clock", code="no-profile", hint='use device="cpu"')


def _seconds(stream: Any, rounds: int, launch: Callable[[], None], repeats: int) -> float:
    """The median time of what `launch` queues on the stream."""

    def repeated() -> None:
        for _ in range(repeats):
            launch()

    runtime = device.runtime()
    graph = runtime.LaunchGraph(stream, repeated)
    times: list[float] = [runtime.seconds(stream, graph) for _ in range(WARM_UP + rounds)]
    return statistics.median(times[WARM_UP:]) / repeats


@cache
def roof(precision: str = "float32") -> Roof:
    """What the GPU does at most, measured once in a process: FLOP and copied bytes a second.

    FLOP are those of float32 multiply-adds, or in another precision of the tensor cores' mma.sync instructions.
    """
    card, runtime = device.find(), device.runtime()
    blocks = WAVES * card.multiprocessors
    out, geometry = runtime.empty(blocks * BLOCK), block_each(blocks, BLOCK)
    if precision == "float32":
        kernel, flop = Kernel("measure", "multiply_adds"), 2 * 8 * BLOCK
    else:
        kernel, flop = Kernel("measure", "tensor_products", (precision,)), BLOCK // 32 * TENSOR_FLOP[precision]
    seconds = _best(kernel, geometry, {"out": out, "steps": CHAIN_STEPS})
    count = min(COPIED_FLOATS, runtime.free_bytes() // 16 // 4 * 4)
    copy = {"source": runtime.empty(count), "to": runtime.empty(count), "count": count}
    bandwidth = 8 * count / _best(Kernel("measure", "copy"), one_each(count // 4), copy)
    return Roof(1, CHAIN_STEPS * blocks * flop / seconds, bandwidth, card.name)


def _best(kernel: Kernel, geometry: Geometry, values: dict[str, Any]) -> float:
    """Seconds of the fastest of so many runs of a kernel on arrays and whole numbers."""
    runtime = device.runtime()
    kinds = {name: "int64" if isinstance(value, int) else "float32[]" for name, value in values.items()}
    launch, stream = runtime.Launch(kernel, kinds, geometry, values, device.find().capability), runtime.Stream()
    graph = runtime.LaunchGraph(stream, lambda: launch(stream))
    times: list[float] = [runtime.seconds(stream, graph) for _ in range(RUNS)]
    return min(times)


def _macs(graph: Graph, plan: Plan) -> list[int]:
    """Multiply-accumulates of each step, for the whole batch: a layer's, shared by its steps by their work."""
    total: dict[str, int] = {}
    for step in plan.steps:
        total[step.node] = total.get(step.node, 0) + step.work
    whole = {node.path: graph.node_macs(node) * plan.images for node in graph}
    return [whole[step.node] * step.work // total[step.node] for step in plan.steps]


def _bytes(argument: Argument, images: int, graph: Graph) -> int:
    """Bytes that an argument stands for: the pixels of a view, constant values, an array of the caller's."""
    if isinstance(argument, Data):
        return argument.values.nbytes
    if isinstance(argument, Address):
        view = argument.view.words
        return 4 * view.lanes * view.height * view.width * (images if view.image else 1)
    if isinstance(argument, Port):
        spec = (graph.outputs if argument.is_output else graph.inputs)[argument.index]
        return 4 * images * math.prod(graph.nodes[spec.node].type.shape)
    return 0
