"""The bound model: a plan's steps as launches, with an arena and weights on the device, ready to be called."""

from __future__ import annotations

import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from netdsl.backends.cuda import device, jit
from netdsl.backends.cuda.lower import plan_steps
from netdsl.backends.cuda.planner import Planner, WeightBank
from netdsl.backends.cuda.staging import staging
from netdsl.backends.cuda.steps import Kernel, Step
from netdsl.backends.cuda.tensors import DeviceTensor
from netdsl.backends.cuda.tiles import Target
from netdsl.backends.cuda.views import Address, Arena, Argument, Counters, Data, Port
from netdsl.errors import DeviceError
from netdsl.graph.ir import Graph
from netdsl.passes import rewrite
from netdsl.plan.memory import place_buffers
from netdsl.profiles import Phases
from netdsl.tensor import Shape

F32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]  # (kernel, how many are done, of how many)

ARENA_SHARE = 0.5  # chosen: of the free memory, what the arena of one call may take; larger batches go in turns
MAX_IMAGES = 1024  # chosen: images that go through the layers together
TENSOR_CAPABILITY = (8, 0)  # the first whose tensor cores take every precision but float32
PLANS_KEPT = 4  # chosen: batch sizes whose plans are kept


@dataclass(frozen=True)
class Plan:
    """Steps for one batch size, each buffer's place in the arena and its size, both in words of 4 bytes."""

    images: int
    steps: tuple[Step, ...]
    offsets: tuple[int, ...]
    arena_floats: int
    counters: int  # int32 zeros that steps ask for

    @property
    def inner(self) -> tuple[int, int]:
        """First step and end of those that touch no array of the caller's: they can be recorded once."""
        outer = [any(isinstance(a, Port) for a in s.arguments.values()) for s in self.steps]
        first = outer.index(False) if False in outer else len(outer)
        return first, len(outer) - outer[::-1].index(False) if False in outer else first


def make_plan(
    graph: Graph, bank: WeightBank, images: int, precision: str = "float32", target: Target | None = None,
    exact: bool = False,
) -> Plan:  # fmt: skip
    """Plan a rewritten graph for a number of images; `exact` keeps Winograd's algorithm out."""
    planner = Planner(graph, bank, images, precision, target, exact)
    plan_steps(planner)
    return placed(planner)


def placed(planner: Planner) -> Plan:
    """The steps of a planner with every buffer's place: where lives do not overlap, buffers share the arena."""
    offsets, size = place_buffers([4 * n for n in planner.floats], [s.buffers() for s in planner.steps])
    wanted = [a.count for s in planner.steps for a in s.arguments.values() if isinstance(a, Counters)]
    return Plan(
        planner.images, tuple(planner.steps), tuple(o // 4 for o in offsets), -(-size // 4), max(wanted, default=0)
    )


@dataclass(frozen=True)
class OnDevice:
    """A flat array that lies on the device already."""

    place: Any


class Bank:
    """Constants on the device, each sent once and shared by all plans; they go with the last plan that has them."""

    def __init__(self) -> None:
        self._sent: WeakKeyDictionary[Data, Any] = WeakKeyDictionary()

    def array(self, data: Data) -> Any:
        found = self._sent.get(data)
        if found is None:
            found = self._sent[data] = device.runtime().upload(data.values)
        return found


class Workspace:
    """What one call at a time of one plan needs: arena, stream, arrays for input and output, launches, graphs."""

    def __init__(self, plan: Plan, bank: Bank, graph: Graph, capability: tuple[int, int]) -> None:
        self.plan = plan
        self._runtime = runtime = device.runtime()
        self.stream = runtime.Stream()
        self.arena = runtime.empty(plan.arena_floats)
        self.counters = runtime.upload(np.zeros(max(1, plan.counters), np.int32))
        sizes = [s.type.elements for s in graph.inputs], [graph.nodes[s.node].type.elements for s in graph.outputs]
        self.inputs, self.outputs = ([runtime.empty(plan.images * n) for n in side] for side in sizes)
        self._staging = staging(runtime, plan.images * max(map(max, sizes)))
        self._launches = [self._launch(step, bank, capability) for step in plan.steps]
        self._ports = [{k: a for k, a in s.arguments.items() if isinstance(a, Port)} for s in plan.steps]
        self._recorded: dict[tuple[int, int], Any] = {}  # graphs by first and end step

    @property
    def is_recorded(self) -> bool:
        """Whether steps are started together, as one graph."""
        return bool(self._recorded)

    def _launch(self, step: Step, bank: Bank, capability: tuple[int, int]) -> Any:
        values = {k: self._value(a, bank) for k, a in step.arguments.items() if not isinstance(a, Port)}
        return self._runtime.Launch(step.kernel, step.kinds(), step.geometry, values, capability)

    def _value(self, argument: Argument, bank: Bank) -> Any:
        if isinstance(argument, Address):
            return argument.within(self.plan.offsets[argument.view.buffer])
        if isinstance(argument, Data):
            return bank.array(argument)
        if isinstance(argument, Arena):
            return self.arena
        return self.counters if isinstance(argument, Counters) else argument

    def call(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Run the plan on flat arrays, of the host or the device, and wait for the result.

        Those on the device are read and written where they lie; others go through arrays of the workspace, on their
        way there through page-locked memory.
        """
        self._runtime.enter()
        self._queue_call(inputs, outputs, lambda: None)
        self.stream.wait()

    def timed_call(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Phases:
        """As `call`, and how long its parts took by the GPU's clock."""
        marks: list[Any] = []
        self._runtime.enter()
        self._queue_call(inputs, outputs, lambda: marks.append(self.stream.mark(timed=True)))
        self.stream.wait()
        return Phases(*(start.until(end) for start, end in pairwise(marks)))

    def _queue_call(self, inputs: Sequence[Any], outputs: Sequence[Any], mark: Callable[[], None]) -> None:
        """Queue copies and steps; `mark` is called before and after each part: inputs, steps, outputs."""
        stream, way = self.stream, self._staging
        sources = [x.place if isinstance(x, OnDevice) else own for x, own in zip(inputs, self.inputs, strict=True)]
        targets = [y.place if isinstance(y, OnDevice) else own for y, own in zip(outputs, self.outputs, strict=True)]
        if any(isinstance(x, OnDevice) for x in inputs):
            stream.after()
        mark()
        for x, place in zip(inputs, sources, strict=True):
            if not isinstance(x, OnDevice):
                way.send(stream, x, place) if way else stream.send(x, place)
        mark()
        self._run(sources, targets)
        mark()
        for y, place in zip(outputs, targets, strict=True):
            if not isinstance(y, OnDevice):
                way.fetch(stream, place, y) if way else stream.fetch(place, y)
        mark()

    def _run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Queue the whole plan on flat device arrays.

        What can be recorded is one graph: all of it where the arrays are the workspace's own, else what lies between
        input and output. The first call records it.
        """
        own = all(map(operator.is_, (*inputs, *outputs), (*self.inputs, *self.outputs)))
        first, end = span = (0, len(self._launches)) if own else self.plan.inner
        self._queue(0, first, inputs, outputs)
        if device.find().simulated or end == first:
            self._queue(first, end, inputs, outputs)
        else:
            if span not in self._recorded:
                record = partial(self._queue, first, end, inputs, outputs)
                self._recorded[span] = self._runtime.LaunchGraph(self.stream, record)
            self._recorded[span].launch(self.stream)
        self._queue(end, len(self._launches), inputs, outputs)

    def queue(self, first: int, end: int) -> None:
        """Launch some of the steps on the workspace's own arrays."""
        self._queue(first, end, self.inputs, self.outputs)

    def _queue(self, first: int, end: int, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for launch, ports in zip(self._launches[first:end], self._ports[first:end], strict=True):
            launch(self.stream, {k: (outputs if p.is_output else inputs)[p.index] for k, p in ports.items()})


class Program:
    """A network bound to its weights on the GPU.

    Call it with float32 C-contiguous arrays [N, ...], one for each input: NumPy arrays or DeviceTensors. It returns one
    for each output, complete: NumPy arrays, or DeviceTensors if any input was one. It may be called from several
    threads at once, each call on a stream of its own. `images_at_once` go through the layers together; a larger batch
    goes in turns.
    """

    threads = 1  # of the host

    def __init__(
        self, graph: Graph, weights: Mapping[str, NDArray[Any]], progress: Progress | None = None,
        precision: str = "float32", exact: bool = False,
    ) -> None:  # fmt: skip
        self.device = device.find()
        self.target = Target(self.device.capability, self.device.multiprocessors)
        if precision != "float32" and self.device.capability < TENSOR_CAPABILITY:
            message = f"precision {precision} needs a GPU of compute capability 8.0 or later, and this is {self.device}"
            raise DeviceError(message, code="cuda-precision", hint="leave precision out")
        self.precision, self.exact = precision, exact
        self.graph = rewrite(graph)
        self._weights = WeightBank(weights)
        self._bank = Bank()
        self.shapes = [graph.nodes[o.node].type.shape for o in graph.outputs]
        self._plans: OrderedDict[int, tuple[Plan, list[Workspace]]] = OrderedDict()
        room = ARENA_SHARE * device.runtime().free_bytes() / 4
        self.images_at_once = max(1, min(MAX_IMAGES, int(room // max(1, self.plan(1).arena_floats))))
        self.prepare(1, progress)

    @property
    def device_name(self) -> str:
        return str(self.device)

    @property
    def arena_bytes(self) -> int:
        """What is allocated on the GPU for the tensors of one call at a time with one image."""
        return 4 * self.plan(1).arena_floats

    def prepare(self, images: int, progress: Progress | None = None) -> None:
        """Plan, compile and send the weights for a batch size now rather than at its first call."""
        turns = {min(images, self.images_at_once), images % self.images_at_once} - {0}
        self._compile([step for n in turns for step in self.plan(n).steps], progress)
        for n in turns:
            idle = self._idle(n)[1]
            if not idle:
                idle.append(self.workspace(n))

    def _compile(self, steps: Sequence[Step], progress: Progress | None) -> None:
        """Compile the kernels that are not kept, telling `progress` of each."""
        if self.device.simulated:
            return
        target = self.device.capability
        missing = {s.kernel: s.kinds() for s in steps if not jit.is_cached(s.kernel, target)}
        if not missing:
            return
        from netdsl.backends.cuda.warm import compile_all

        def started(work: tuple[Kernel, Any]) -> None:
            if progress:
                progress(work[0].name, sum(jit.is_cached(kernel, target) for kernel in missing), len(missing))

        compile_all([*missing.items()], target, started)
        if progress:
            progress("", len(missing), len(missing))

    def plan(self, images: int) -> Plan:
        """The plan for a batch size."""
        return self._idle(images)[0]

    def workspace(self, images: int) -> Workspace:
        """Fresh memory for one call at a time of a batch size."""
        return Workspace(self.plan(images), self._bank, self.graph, self.device.capability)

    def _idle(self, images: int) -> tuple[Plan, list[Workspace]]:
        found = self._plans.get(images)
        if found is None:
            plan = make_plan(self.graph, self._weights, images, self.precision, self.target, self.exact)
            found = self._plans[images] = plan, []
            while len(self._plans) > PLANS_KEPT:
                self._plans.popitem(last=False)
        return found

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        device.find()  # says so where a fork has left the GPU behind
        n = len(inputs[0])
        stays = any(isinstance(x, DeviceTensor) for x in inputs)
        outputs = [self._output((n, *shape), stays) for shape in self.shapes]
        for images, given, wanted in self._turns(inputs, outputs):
            with self._borrowed(images) as workspace:
                workspace.call(given, wanted)
        return outputs

    def phases(self, inputs: Sequence[F32]) -> Phases:
        """How long the parts of one call on arrays of the host take, all turns of its batch together."""
        outputs = [np.empty((len(inputs[0]), *shape), np.float32) for shape in self.shapes]
        total = Phases(0.0, 0.0, 0.0)
        for images, given, wanted in self._turns(inputs, outputs):
            with self._borrowed(images) as workspace:
                total += workspace.timed_call(given, wanted)
        return total

    def _turns(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Iterator[tuple[int, list[Any], list[Any]]]:
        """The images that go through the layers together: how many, and their part of each array, flat."""
        n = len(inputs[0])
        for start in range(0, n, self.images_at_once):
            part = slice(start, min(n, start + self.images_at_once))
            yield part.stop - start, [_part(x, part) for x in inputs], [_part(y, part) for y in outputs]

    @staticmethod
    def _output(shape: Shape, stays: bool) -> Any:
        if not stays:
            return np.empty(shape, np.float32)
        return DeviceTensor(device.runtime().empty(math.prod(shape)), shape)

    @contextmanager
    def _borrowed(self, images: int) -> Iterator[Workspace]:
        """A workspace that nobody else has meanwhile; one in which something failed is not used again."""
        idle = self._idle(images)[1]
        try:
            workspace = idle.pop()
        except IndexError:
            workspace = self.workspace(images)
        yield workspace
        idle.append(workspace)


def _part(array: Any, images: slice) -> Any:
    """Some images of an array, flat."""
    size = math.prod(array.shape[1:])
    part = slice(images.start * size, images.stop * size)
    return OnDevice(array.flat[part]) if isinstance(array, DeviceTensor) else array.reshape(-1)[part]


def lower(
    graph: Graph, weights: Mapping[str, NDArray[Any]], progress: Progress | None = None, *,
    precision: str = "float32", exact: bool = False,
) -> Program:  # fmt: skip
    """Rewrite, plan and bind a graph for the GPU.

    weights    stored tensors by name, as `graph.tensors` lists them
    progress   told of each kernel that has to be compiled
    precision  of the products in convolutions and dense layers: "float32", or with tensor cores "tf32", "float16" or
               "bfloat16", each with sums in float32; in the last two maps are of that type in memory too
    exact      whether every convolution is computed by its definition, never by Winograd's algorithm

    Errors: DeviceError when there is no usable GPU or not enough memory.
    """
    return Program(graph, weights, progress, precision, exact)
