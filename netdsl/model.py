"""A compiled network: arrays in, arrays out.

A `Model` holds a graph, its weights and the program that a backend made of both. Calling it checks the input once,
runs the program, and hands out fresh arrays. Nothing of it changes after it is made, except that a network with free
sizes (`?`) keeps the programs of the last few sizes it met; so it may be called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from netdsl.arrays import Port, as_float32, check_shape, open_shape
from netdsl.errors import DeviceError, InputError, nearest
from netdsl.frozen import frozen
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.ops.base import Array
from netdsl.tensor import Shape
from netdsl.weights import WeightSet

if TYPE_CHECKING:
    from netdsl.backends.cpu.precision import Storage
    from netdsl.graph.show import Summary
    from netdsl.profiles import Phases, Profile

DEVICES = ("cpu", "cuda", "reference")
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
SHORT_PRECISIONS = {"f16": "float16", "bf16": "bfloat16"}
_SIZES_KEPT = 4  # chosen: programs kept for a network with free sizes; each has its own packed weights
_MAX_THREADS = 1024  # chosen: more is a slip of the hand on any machine of today

_FLOAT32 = np.dtype(np.float32)
_ndarray = np.ndarray

Progress = Callable[[str, int, int], None]  # (what, done, total)


class Program(Protocol):
    """What a backend makes of a graph and its weights. `threads`: the most it uses for one call."""

    @property
    def threads(self) -> int: ...

    @property
    def arena_bytes(self) -> int | None:
        """What a call with one image allocates for intermediate results, where it is known."""

    def prepare(self, images: int, progress: Progress | None = None) -> None:
        """Compile what a batch of so many images needs."""

    def __call__(self, inputs: list[Array], /) -> list[Array]:
        """float32 C-contiguous [N, *shape] for every input -> float32 [N, *shape] for every output, all new."""


@frozen
class Interpreted:
    """A graph run by the NumPy interpreter, in float64."""

    graph: Graph
    weights: Mapping[str, Array]
    threads: int = 1  # its own; NumPy may use more inside a matrix product

    arena_bytes: None = None

    def prepare(self, images: int, progress: Progress | None = None) -> None:
        """Nothing is compiled."""

    def __call__(self, inputs: list[Array], /) -> list[Array]:
        from netdsl.backends import reference

        return [y.astype(np.float32) for y in reference.run(self.graph, self.weights, inputs)]


def lower(
    graph: Graph,
    weights: WeightSet,
    device: str,
    threads: int | None,
    progress: Progress | None = None,
    exact: bool = False,
    precision: str = "float32",
) -> Program:
    """The program of a graph on one of DEVICES."""
    if device == "reference":
        return Interpreted(graph, weights.tensors)
    if device == "cuda":
        from netdsl.backends.cuda import program as cuda

        return cuda.lower(graph, weights.tensors, progress=told(progress), precision=precision, exact=exact)
    from netdsl.backends import cpu

    return cpu.lower(graph, weights.tensors, threads, progress=told(progress), exact=exact, precision=precision)


def told(progress: Progress | None) -> Progress | None:
    """A backend's progress, kernel by kernel, as the user's."""
    return progress and (lambda kernel, done, total: progress("compiling kernels", done, total))


def choose_device(device: str) -> str:
    """The device to use for one that was asked for: "auto" is a usable GPU, else the CPU. Raises DeviceError."""
    if device not in ("auto", *DEVICES):
        close = nearest(str(device), ("auto", *DEVICES))
        hint = f'did you mean "{close}"?' if close else f"there are auto, {', '.join(DEVICES)}"
        raise DeviceError(f"no device {device!r}", code="unknown-device", hint=hint)
    if device in ("auto", "cuda"):
        from netdsl.backends.cuda import device as gpu

        if device == "cuda":
            gpu.find()
        return "cpu" if device == "auto" and gpu.usable() is None else "cuda"
    return device


def checked_precision(precision: str, device: str) -> str:
    """One of PRECISIONS that a device has; its long name for the short one. Raises InputError."""
    known = (*PRECISIONS, *SHORT_PRECISIONS)
    if precision not in known:
        close = nearest(str(precision), known)
        hint = f'did you mean "{close}"?' if close else f"there are {', '.join(PRECISIONS)}"
        raise InputError(f"no precision {precision!r}", code="unknown-precision", hint=hint)
    precision = SHORT_PRECISIONS.get(precision, precision)
    if precision == "tf32" and device != "cuda":
        message = f"precision {precision} needs the tensor cores of a GPU, and this runs on the {device} device"
        raise InputError(message, code="precision-device", hint='leave precision out, or use device="cuda"')
    if precision != "float32" and device == "reference":
        message = f"the {device} device computes in float64 and rounds nothing to {precision}"
        raise InputError(message, code="precision-device", hint='leave precision out, or use device="cpu"')
    return precision


class Model:
    """A network bound to weights on a device. Made by `netdsl.compile`.

    graph                 the typed graph that was compiled
    inputs, outputs       Port records: name, shape, dtype
    device, threads       where it runs ("cpu", "cuda" or "reference"), on how many threads of the host
    device_name           the device in words, such as the GPU's name
    precision             "float32" but where less was asked for: of the products in convolutions and dense layers on
                          a GPU, of weights that a layer waits for on the CPU
    exact                 whether convolutions are plain sums of products, never Winograd's algorithm
    weights_description   where the weights come from, in words
    """

    def __init__(
        self,
        graph: Graph,
        weights: WeightSet,
        device: str = "cpu",
        threads: int | None = None,
        source: str | Path | None = None,
        exact: bool = False,
        progress: Progress | None = None,
        precision: str = "float32",
    ) -> None:
        self.graph = graph
        self.precision = precision
        self.exact = exact
        self.device = device
        self._weights = weights
        self._source = source or _source(graph)
        self._program = lower(graph, weights, device, _checked_threads(threads), progress, exact, precision)
        self.threads = self._program.threads
        self._shapes = tuple(spec.type.shape for spec in graph.inputs)
        self._names = tuple(spec.name for spec in graph.outputs)
        self._sizes: dict[tuple[Shape, ...], Program] = {self._shapes: self._program}
        # What the fast path of a call compares with: the one input's shape, and whether one array is the answer.
        self._shape = self._shapes[0] if len(self._shapes) == 1 else None
        self._bare = len(self._names) == 1

    def __call__(self, /, *arrays: Any, **named: Any) -> Any:
        """Run the network: `net(x)`, `net(a, b)` in the order of the inputs, or `net(image=a)` by name.

        Each input is array-like [N, *shape], any N, 0 included: NumPy, anything with DLPack, nested lists; real numbers
        of any type (made float32). One output: float32 ndarray [N, *shape]; several: a dict of those by name. Inputs
        are never written to or kept; outputs are new arrays. On the device "cuda", contiguous float32 arrays that lie
        on the GPU are read there without a copy, and if any input is one, outputs stay there too: arrays with
        `__cuda_array_interface__`, DLPack and `numpy()`. Raises InputError.
        """
        if len(arrays) == 1 and not named:
            x = arrays[0]
            if type(x) is _ndarray and x.dtype == _FLOAT32 and x.shape[1:] == self._shape:
                flags = x.flags
                if flags.c_contiguous and flags.aligned:
                    outputs = self._program([x])
                    return outputs[0] if self._bare else dict(zip(self._names, outputs, strict=True))
        return self._run(self._arranged(arrays, named))

    def _run(self, given: list[Any]) -> Any:
        arrays, program = self._ready(given)
        outputs = program(arrays)
        return outputs[0] if self._bare else dict(zip(self._names, outputs, strict=True))

    def _ready(self, given: list[Any]) -> tuple[list[Array], Program]:
        """The arguments of a call as the arrays it takes, and the program for their shapes."""
        specs = self.graph.inputs
        arrays = [self._array(x, spec.name) for x, spec in zip(given, specs, strict=True)]
        for array, spec in zip(arrays, specs, strict=True):
            check_shape(array.shape, spec)
        if len({len(a) for a in arrays}) > 1:
            found = ", ".join(f"{s.name} has {len(a)}" for a, s in zip(arrays, specs, strict=True))
            raise InputError(f"the inputs must have the same batch size; {found}", code="batch-mismatch")
        return arrays, self._program_for(tuple(a.shape[1:] for a in arrays))

    def _array(self, x: Any, name: str) -> Any:
        if self.device == "cuda" and not isinstance(x, np.ndarray):
            from netdsl.backends.cuda.tensors import adopt, on_device

            if on_device(x):
                return adopt(x, name)
        return as_float32(x, name)

    def _arranged(self, arrays: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """The arguments of a call in the order of the inputs."""
        names = [spec.name for spec in self.graph.inputs]
        wanted = f"{self.graph.name} takes {len(names)} input{'s' if len(names) != 1 else ''} ({', '.join(names)})"
        for name in named:
            if name not in names:
                close = nearest(name, names)
                hint = f"did you mean {close}?" if close else None
                raise InputError(f"no input named {name}; {wanted}", code="unknown-input", hint=hint)
        if len(arrays) > len(names) or any(n in named for n in names[: len(arrays)]):
            raise InputError(f"{wanted}, found {len(arrays) + len(named)}", code="input-count")
        missing = [n for n in names[len(arrays) :] if n not in named]
        if missing:
            raise InputError(f"{wanted}; missing: {', '.join(missing)}", code="input-count")
        return [*arrays, *(named[n] for n in names[len(arrays) :])]

    def _program_for(self, shapes: tuple[Shape, ...]) -> Program:
        """The program for these input shapes; compiled when the network has free sizes and these are new."""
        program = self._sizes.get(shapes)
        if program is not None:
            return program
        graph = self._resized(shapes)
        program = lower(graph, self._weights, self.device, self.threads, None, self.exact, self.precision)
        # A new dict takes the old one's place, so that another thread never sees one half changed.
        recent = list(self._sizes.items())[-(_SIZES_KEPT - 1) :]
        self._sizes = {**dict(recent), shapes: program}
        return program

    def _resized(self, shapes: tuple[Shape, ...]) -> Graph:
        sizes = {spec.name: shape for spec, shape in zip(self.graph.inputs, shapes, strict=True)}
        graph = build(self._source, params=self.graph.arguments, input_shapes=sizes)
        if graph.source.text != self.graph.source.text:
            message, path = "the network's file has changed since it was compiled", self.graph.source.name
            raise InputError(message, code="file-changed", path=path, hint="compile it again")
        if graph.tensors != self.graph.tensors:
            found = ", ".join("x".join(map(str, s)) for s in shapes)
            message = f"the weights of {graph.name} do not fit an input of {found}"
            hint = "compile it with these sizes (inputs=) and weights made for them"
            raise InputError(message, code="size-needs-other-weights", hint=hint)
        return graph

    def prepare(self, images: int, progress: Progress | None = None) -> None:
        """Compile what a batch of so many images needs now, rather than at its first call."""
        self._program.prepare(images, told(progress))

    @property
    def device_name(self) -> str:
        """The device in words: "cpu", "reference", or the GPU's name, compute capability and memory."""
        return str(getattr(self._program, "device_name", self.device))

    @property
    def storage(self) -> Storage | None:
        """Which weights are kept in 16 bits, printable: None in float32, and on devices other than the CPU."""
        return getattr(self._program, "storage", None)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Name, shape and dtype of every input."""
        return tuple(Port(spec.name, open_shape(spec)) for spec in self.graph.inputs)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Name, shape and dtype of every output."""
        free = any(any(spec.free) for spec in self.graph.inputs)
        ports = []
        for spec in self.graph.outputs:
            shape: tuple[int | None, ...] = self.graph.nodes[spec.node].type.shape
            if free and len(shape) == 3:
                shape = (shape[0], None, None)
            ports.append(Port(spec.name, (None, *shape)))
        return tuple(ports)

    @property
    def weights_description(self) -> str:
        return self._weights.description

    @property
    def random_weights(self) -> bool:
        """Whether the weights are random, so that the answers mean nothing."""
        return self._weights.is_random

    def summary(self) -> Summary:
        """Every layer with its output shape, parameters, multiply-accumulates, memory and receptive field."""
        from netdsl.graph.show import summary

        precision = None if self.storage is None else str(self.storage)
        return summary(self.graph, self._program.arena_bytes, precision)

    def profile(self, /, *arrays: Any, rounds: int = 20, **named: Any) -> Profile:
        """How long each step of a call on these inputs takes: kernel, time, FLOP/s, part of the machine's peak.

        The inputs are those of a call, with at least one image. Each step is timed `rounds` times, and its median kept;
        the machine's peak is measured between them (a GPU's once), its bandwidth at the first profile of a process.
        Printable; iterates over steps.
        Errors: InputError, and DeviceError where the device has no steps.
        """
        if self.device == "reference":
            hint = 'compile it with device="cpu"'
            raise DeviceError(f"the {self.device} device has no kernels to time", code="no-profile", hint=hint)
        inputs, program = self._to_time(arrays, named, rounds)
        return _profile(program, inputs, rounds)

    def phases(self, /, *arrays: Any, rounds: int = 20, **named: Any) -> Phases | None:
        """How long the parts of a call on arrays of the host take on a GPU: inputs there, the steps, outputs back.

        Medians of `rounds` calls, by the GPU's own clock. None on devices that work in the host's memory.
        Errors: InputError, and DeviceError in the simulator, which has no clock.
        """
        inputs, program = self._to_time(arrays, named, rounds)
        if self.device != "cuda":
            return None
        from netdsl.backends.cuda import profile as gpu
        from netdsl.backends.cuda import program as cuda

        assert isinstance(program, cuda.Program)
        return gpu.phases(program, [np.asarray(x) for x in inputs], rounds)

    def _to_time(self, arrays: tuple[Any, ...], named: dict[str, Any], rounds: Any) -> tuple[list[Any], Program]:
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise InputError(f"rounds must be a whole number above 0, found {rounds!r}", code="bad-rounds")
        inputs, program = self._ready(self._arranged(arrays, named))
        if not len(inputs[0]):
            raise InputError("a batch of no images has nothing to time", code="empty-batch")
        return inputs, program

    def __repr__(self) -> str:
        inputs, outputs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"<netdsl.Model {self.graph.name}: {inputs} -> {outputs}; {self.device}, {self.weights_description}>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def __reduce__(self) -> tuple[Any, ...]:
        # The program holds machine code and addresses; it is made anew where the pickle is loaded. Weights that are
        # mapped from a file are copied into the pickle, so that it stands alone.
        tensors = {name: np.array(array) for name, array in self._weights.tensors.items()}
        weights = WeightSet(tensors, self._weights.description, self._weights.is_random)
        return Model, (self.graph, weights, self.device, self.threads, self._source, self.exact, None, self.precision)


def _profile(program: Program, inputs: list[Any], rounds: int) -> Profile:
    from netdsl.backends import cpu

    if isinstance(program, cpu.Program):
        from netdsl.backends.cpu.profile import profile

        return profile(program, inputs, rounds)
    from netdsl.backends.cuda import profile as gpu
    from netdsl.backends.cuda import program as cuda

    assert isinstance(program, cuda.Program)
    return gpu.profile(program, [np.asarray(x) for x in inputs], rounds)


def _source(graph: Graph) -> str | Path:
    """What to build the graph from again, for other sizes, wherever the process stands by then."""
    return graph.source.text if graph.source.name == "<text>" else Path(graph.source.name).absolute()


def _checked_threads(threads: int | None) -> int | None:
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or not 1 <= threads <= _MAX_THREADS:
        raise InputError(
            f"threads must be a whole number from 1 to {_MAX_THREADS}, found {threads!r}", code="bad-threads"
        )
    return int(threads)
