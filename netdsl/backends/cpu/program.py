"""The bound model: a plan's steps as a table of addresses, with an arena, ready to be called."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cpu import jit
from netdsl.backends.cpu.bank import WeightBank
from netdsl.backends.cpu.lower import plan_steps
from netdsl.backends.cpu.planner import Planner
from netdsl.backends.cpu.precision import Storage, check_precision, storage
from netdsl.backends.cpu.threads import available_threads, team
from netdsl.backends.cpu.tiles import wanted
from netdsl.backends.cpu.turns import buffers_in_use, in_turns, spanning
from netdsl.backends.cpu.views import Address, Data, Port, Step, aligned
from netdsl.graph.ir import Graph
from netdsl.passes import rewrite
from netdsl.plan.memory import place_buffers

F32 = NDArray[np.float32]
Shape = tuple[int, ...]
Place = tuple[int, int]  # of an array: address and bytes

SLACK_BYTES = (
    128 * 1024
)  # a tile at a row's end reads past it: at most 14 pixels x stride x one block, before and after
MAX_IMAGES = 16  # chosen: images that go through the layers together; more go in turns
ARENA_BYTES = 1 << 30  # chosen: fewer images go together when their arena would be larger
WORK_PER_THREAD = 40_000  # chosen: multiply-accumulates (about half a microsecond) that repay a barrier
WORK_OF_PART = 100_000  # chosen: multiply-accumulates (some 2 microseconds) that repay taking one more part of a step
WORK_TO_SHARE = 6_000_000  # chosen: a whole call with less (some 60 microseconds) stays on the caller's thread
WORK_IN_PARTS = (500_000, 500_000_000)  # chosen: batches of so much work (6 us to 6 ms) are cut by images
COPIED_BYTES = 64 * 1024  # chosen: arrays that take longer to locate (some 1.5 microseconds) than to copy
PLANS_KEPT = 4  # chosen: batch sizes whose plans are kept


@dataclass(frozen=True)
class Plan:
    """Steps for one batch size, each buffer's place in the arena, and its size in bytes."""

    images: int
    steps: tuple[Step, ...]
    order: tuple[tuple[int, int], ...]  # of work: step, first image
    spans: frozenset[int]  # buffers that hold the whole batch even where a step takes fewer images
    offsets: tuple[int, ...]
    arena_bytes: int
    shares: tuple[int, ...]  # threads for each step
    parts: tuple[int, ...]  # that each step is cut into
    fences: tuple[bool, ...]  # whether a barrier follows each entry of `order`

    @property
    def is_brief(self) -> bool:
        """Whether a call takes so little time that sharing it among threads, or letting others run, takes more."""
        return _work(self.steps, self.images) < WORK_TO_SHARE

    @property
    def workspace_bytes(self) -> int:
        """What is allocated for one call at a time: the arena, and room before and after it."""
        return self.arena_bytes + 2 * SLACK_BYTES


def make_plan(
    graph: Graph, bank: WeightBank, images: int, threads: int, exact: bool = False, whole: int | None = None,
    winograd: Mapping[int, int] | None = None,
) -> Plan:  # fmt: skip
    """Plan a rewritten graph for a number of images and threads; `exact` keeps Winograd's algorithm out.

    whole     images of the batch that these are a part of: algorithms are chosen for it
    winograd  the patch size by node, where it is not to be chosen
    """
    planner = Planner(graph, bank, images, threads, exact, whole or images, winograd)
    plan_steps(planner)
    bank.finish(threads)
    steps = tuple(planner.steps)
    spans = spanning(steps)
    held = {b: images if b in spans else step.images for step in steps for b in step.buffers()}
    sizes = [n if b in planner.fixed else n * held.get(b, images) for b, n in enumerate(planner.bytes)]
    offsets, size = place_buffers(sizes, buffers_in_use(steps, spans, images), planner.lasting)
    if _work(steps, images) < WORK_TO_SHARE:
        threads = 1
    shares = [max(1, min(threads, s.work // WORK_PER_THREAD)) for s in steps]
    parts = tuple(_parts(step, n) for step, n in zip(steps, shares, strict=True))
    order = in_turns(steps, images)
    fences = [shares[a] > 1 or shares[b] > 1 for (a, _), (b, _) in pairwise(order)]
    fences.append(max(shares) > 1)  # so that no worker reads the table once the call has returned
    return Plan(images, steps, tuple(order), spans, tuple(offsets), size, tuple(shares), parts, tuple(fences))


def _parts(step: Step, threads: int) -> int:
    """How many parts a step is cut into, for threads that may not be equally fast."""
    if threads == 1:
        return 1
    most = 2 * wanted(threads)
    return max(threads, min(step.units or most, most, step.work // WORK_OF_PART))


def _work(steps: Sequence[Step], images: int) -> int:
    """Of a batch, in multiply-accumulates or so."""
    return sum(step.work * images // step.images for step in steps)


def make_plans(graph: Graph, bank: WeightBank, images: int, threads: int, exact: bool = False) -> list[Plan]:
    """The plans of a batch's parts, one for each thread where the network is small; else one for all its images."""
    together = make_plan(graph, bank, images, threads, exact)
    least, most = WORK_IN_PARTS
    count = min(threads, images)
    if count <= 1 or not least <= _work(together.steps, images) <= most:
        return [together]
    sizes = [images * (i + 1) // count - images * i // count for i in range(count)]
    made = {n: make_plan(graph, bank, n, 1, exact, images) for n in set(sizes)}
    return [made[n] for n in sizes]


def executors(plans: Sequence[Plan]) -> list[jit.Kernel]:
    """The kernels that walk the tables of a batch's plans."""
    if len(plans) > 1:
        return [jit.RUN, jit.SERVE, jit.EACH]
    return [jit.RUN, jit.SERVE] if max(plans[0].shares, default=1) > 1 else [jit.RUN]


def images_at_once(plan: Plan) -> int:
    """How many images go through the layers together, from the plan of one."""
    return max(1, min(MAX_IMAGES, ARENA_BYTES // max(1, plan.arena_bytes)))


class Workspace:
    """Memory for one call at a time of one plan: the arena, the argument blocks and the table of steps."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.arena = aligned(plan.workspace_bytes // 4)
        self.arena[:] = 0.0
        self._base = self.arena.ctypes.data + SLACK_BYTES
        words: list[int] = []
        rows = []
        self.ports: list[tuple[int, Port, int]] = []  # where the addresses of the caller's arrays belong, first image
        for (index, first), fence in zip(plan.order, plan.fences, strict=True):
            step = plan.steps[index]
            address, parameters = jit.load(step.kernel)
            rows.append((address, len(words), plan.shares[index], int(fence), plan.parts[index]))
            words += [self._word(step.arguments[p], first, len(words) + k) for k, p in enumerate(parameters)]
        self.words = np.array(words, np.int64)
        self.table = np.array(rows, np.int64)
        self.table[:, 1] = self.words.ctypes.data + 8 * self.table[:, 1]
        self.steps = len(rows)
        self.table_address = self.table.ctypes.data
        self.threads = max(plan.shares, default=1)
        self.go: Callable[[], Any] = self._share  # runs all steps on the arrays that were bound
        if self.threads == 1:
            self.go = team().starter(self.table_address, self.steps, plan.is_brief)

    def _word(self, argument: Any, first: int, position: int) -> int:
        if isinstance(argument, Address):
            view = argument.view
            at: int = self._base + self.plan.offsets[view.buffer] + view.start + argument.offset
            return at + first * view.image if view.buffer in self.plan.spans else at
        if isinstance(argument, Data):
            return argument.values.ctypes.data
        if isinstance(argument, Port):
            self.ports.append((position, argument, first))
            return 0
        return int(argument)

    def bind(self, inputs: Sequence[Place], outputs: Sequence[Place]) -> None:
        """Say where the caller's arrays are."""
        for position, port, first in self.ports:
            at, size = outputs[port.index] if port.is_output else inputs[port.index]
            self.words[position] = at + first * size // self.plan.images

    def _share(self) -> None:
        team().run(self.table_address, self.steps, self.threads)


class Parts:
    """Memory for one call of a small network on a batch: each thread takes some images through all layers by itself.

    No barrier, and nothing that one thread wrote is read by another: between layers of a few microseconds both cost
    more than that every thread reads all weights.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.parts = [Workspace(plan) for plan in plans]
        self._images = sum(plan.images for plan in plans)
        self._tables = np.array([(w.table_address, w.steps) for w in self.parts], np.int64)
        self._words = np.array([self._tables.ctypes.data, len(plans)], np.int64)
        row = (jit.load(jit.EACH)[0], self._words.ctypes.data, len(plans), 1, len(plans))
        self._table = np.array(row, np.int64)

    def bind(self, inputs: Sequence[Place], outputs: Sequence[Place]) -> None:
        """Say where the caller's arrays are; each part gets its images of them."""
        first = 0
        for part in self.parts:
            images = part.plan.images
            part.bind(self._share(inputs, first, images), self._share(outputs, first, images))
            first += images

    def _share(self, arrays: Sequence[Place], first: int, images: int) -> list[Place]:
        return [(at + first * size // self._images, images * size // self._images) for at, size in arrays]

    def go(self) -> None:
        """Run all parts on the arrays that were bound."""
        team().run(self._table.ctypes.data, 1, len(self.parts))


class Desk:
    """What one call at a time of a batch needs: memory for its steps, and where the caller's arrays lie.

    NumPy takes longer to tell where a small array lies than to copy it: if all are small, they are copied to and from
    places that were bound once. As bytes: NumPy gives the interpreter's lock up to copy more than 500 numbers, and of
    many callers another would take it every time.
    """

    def __init__(self, plans: Sequence[Plan], inputs: Sequence[Shape], outputs: Sequence[Shape]) -> None:
        self._work = Workspace(plans[0]) if len(plans) == 1 else Parts(plans)
        self._shapes = outputs
        self._own: tuple[list[memoryview], list[F32]] | None = None  # the bytes of the inputs, the outputs
        if 4 * sum(math.prod(shape) for shape in (*inputs, *outputs)) <= COPIED_BYTES:
            copies, results = ([np.zeros(s, np.float32) for s in shapes] for shapes in (inputs, outputs))
            self._work.bind(places(copies), places(results))
            self._own = [x.data.cast("B") for x in copies], results

    def run(self, inputs: Sequence[F32]) -> list[F32]:
        """One call; results are new arrays."""
        if self._own is not None:
            for own, x in zip(self._own[0], inputs, strict=True):
                own[:] = x.data.cast("B")
            self._work.go()
            return [own.copy() for own in self._own[1]]
        outputs = [np.empty(shape, np.float32) for shape in self._shapes]
        self._work.bind(places(inputs), places(outputs))
        self._work.go()
        return outputs


def places(arrays: Sequence[F32]) -> list[Place]:
    """Where arrays lie."""
    return [(a.__array_interface__["data"][0], a.nbytes) for a in arrays]


class Program:
    """A network bound to its weights on the CPU.

    Call it with float32 C-contiguous arrays [N, ...], one for each input; it returns one for each output. It may be
    called from several threads at once. The same input gives the same bits, whatever the number of threads (unless
    `netdsl tune` found different algorithms fastest for them).
    `images_at_once` go through the layers together; a larger batch goes in turns.
    """

    def __init__(
        self, graph: Graph, weights: Mapping[str, NDArray[Any]], threads: int | None = None,
        progress: jit.Progress | None = None, exact: bool = False, precision: str = "float32",
    ) -> None:  # fmt: skip
        check_precision(precision)
        self.exact = exact
        self.graph = rewrite(graph)
        self.threads = min(threads or available_threads(), available_threads())
        self._bank = WeightBank(weights, precision)
        self._inputs = [spec.type.shape for spec in graph.inputs]
        self._shapes = [graph.nodes[o.node].type.shape for o in graph.outputs]
        self._plans: OrderedDict[int, tuple[Sequence[Plan], list[Desk]]] = OrderedDict()
        self.images_at_once = images_at_once(self.plan(1))
        self.prepare(1, progress)

    def prepare(self, images: int, progress: jit.Progress | None = None) -> None:
        """Plan and compile for a batch size now rather than at its first call."""
        turns = {min(images, self.images_at_once), images % self.images_at_once} - {0}
        plans = [self._idle(n)[0] for n in turns]
        needed = [k for together in plans for k in executors(together)]
        needed += [s.kernel for together in plans for plan in together for s in plan.steps]
        jit.load_all(needed, progress)

    @property
    def storage(self) -> Storage | None:
        """Which weights are kept in 16 bits, where that was asked for."""
        precision = self._bank.precision
        return None if precision == "float32" else storage(self.graph, precision)

    @property
    def arena_bytes(self) -> int:
        """What is allocated for one call at a time with one image."""
        return self.plan(1).workspace_bytes

    def plan(self, images: int) -> Plan:
        """The plan for a batch size whose images go through the layers together."""
        plans, _ = self._idle(images)
        return plans[0] if len(plans) == 1 else make_plan(self.graph, self._bank, images, self.threads, self.exact)

    def _idle(self, images: int) -> tuple[Sequence[Plan], list[Desk]]:
        """The plans of a batch's parts (one: all images together), and desks nobody uses now."""
        found = self._plans.get(images)
        if found is None:
            made = make_plans(self.graph, self._bank, images, self.threads, self.exact)
            found = self._plans[images] = made, []
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return found

    def __call__(self, inputs: Sequence[F32]) -> list[F32]:
        n = len(inputs[0])
        if 0 < n <= self.images_at_once:
            return self._run(n, inputs)
        outputs = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        for start in range(0, n, self.images_at_once):
            part = slice(start, min(n, start + self.images_at_once))
            made = self._run(part.stop - start, [x[part] for x in inputs])
            for y, own in zip(outputs, made, strict=True):
                y[part] = own
        return outputs

    def _run(self, images: int, inputs: Sequence[F32]) -> list[F32]:
        plans, idle = self._idle(images)
        try:
            desk = idle.pop()
        except IndexError:
            sides = [[(images, *shape) for shape in side] for side in (self._inputs, self._shapes)]
            desk = Desk(plans, sides[0], sides[1])
        outputs = desk.run(inputs)
        idle.append(desk)
        return outputs


def lower(
    graph: Graph, weights: Mapping[str, NDArray[Any]], threads: int | None = None, progress: jit.Progress | None = None,
    *, exact: bool = False, precision: str = "float32",
) -> Program:  # fmt: skip
    """Rewrite, plan and bind a graph for the CPU.

    weights     stored tensors by name, as `graph.tensors` lists them
    threads     at most so many (the processors this process may use, when None)
    progress    told of each kernel that has to be compiled
    exact       whether every convolution is computed by its definition, never by Winograd's algorithm
    precision   of weights that a layer waits for: "float32", "float16" or "bfloat16"; see precision.py

    Errors: DeviceError (precision-processor), WeightsError (weights-range).
    """
    return Program(graph, weights, threads, progress, exact, precision)
