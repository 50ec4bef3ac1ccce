"""Single convolutions for tests and ladder of the CUDA kernels: data, the answer by definition, a launch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from netdsl.backends.cuda import device
from netdsl.backends.cuda.precision import map_type
from netdsl.backends.cuda.steps import Kernel
from netdsl.backends.cuda.tiles import Choice, ConvShape
from netdsl.backends.cuda.views import ELEMENTS, padded
from netdsl.halves import BITS
from netdsl.ops.conv import correlate
from netdsl.ops.window import pad_map

Array = np.ndarray[Any, Any]

NOTHING = np.uint32(0xFFFFFFFF).view(np.float32)  # nan, of which both halves are nan


@dataclass(frozen=True)
class Case:
    """A convolution of [images, channels, height, width] maps and what its result passes through."""

    images: int
    channels: int
    features: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    residual: bool = False
    function: str | None = None
    low: float = -np.inf
    high: float = np.inf
    precision: str = "float32"
    apart: int = 0  # lanes between pixels of the result beside its own, as within a concatenation
    result: str | None = None  # type of the result in memory, where it is not that of the input

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        cover = [self.dilation[i] * (self.kernel[i] - 1) + 1 for i in (0, 1)]
        full = self.height + self.pad[0] + self.pad[2], self.width + self.pad[1] + self.pad[3]
        return (full[0] - cover[0]) // self.stride[0] + 1, (full[1] - cover[1]) // self.stride[1] + 1

    @property
    def shape(self) -> ConvShape:
        return ConvShape(
            self.images, *self.size, self.channels, self.features, self.kernel, self.stride, self.residual,
            self.function, self.precision, False, self.groups, self.dilation, self.result or map_type(self.precision),
        )  # fmt: skip

    @property
    def terms(self) -> int:
        """Products summed for one result."""
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    def __str__(self) -> str:
        """The fields that are not as usual: the id of a test."""
        texts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
                texts.append(f"{field.name}={text}")
        return ",".join(texts)


@dataclass(frozen=True)
class Data:
    x: Array
    weight: Array
    bias: Array
    residual: Array


def draw(case: Case, seed: int = 0) -> Data:
    """Values about one in size; weights so that results are too."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    weight = normal(case.features, case.channels // case.groups, *case.kernel) / np.float32(np.sqrt(case.terms))
    return Data(
        normal(case.images, case.channels, case.height, case.width), weight, normal(case.features),
        normal(case.images, case.features, *case.size),
    )  # fmt: skip


def expected(case: Case, data: Data) -> Array:
    """The result by definition in float64, up to the limits."""
    x = pad_map(data.x.astype(np.float64), case.pad)
    y = correlate(x, data.weight.astype(np.float64), case.stride, case.dilation, case.groups, case.size)
    y = y + data.bias.reshape(-1, 1, 1) + (data.residual if case.residual else 0)
    return np.clip(y, case.low, case.high)


def lanes(case: Case, channels: int) -> int:
    """What a pixel's channels are filled up to."""
    return padded(channels, case.shape.lanes)


def nhwc(x: Array, pixel: int) -> Array:
    """[N, C, H, W] as [N, H, W, pixel], other lanes of a pixel zero."""
    out = np.zeros((x.shape[0], *x.shape[2:], pixel), np.float32)
    out[..., : x.shape[1]] = x.transpose(0, 2, 3, 1)
    return out


def stored(values: Array, dtype: str) -> Array:
    """float32 values as words of 4 bytes that hold them in that type."""
    return BITS[dtype](values.reshape(-1)).view(np.float32) if dtype in BITS else values.reshape(-1)


def loaded(words: Array, dtype: str) -> Array:
    """What `stored` made words of."""
    return of_bits(words.view(np.uint16), dtype) if dtype in BITS else words


def of_bits(halves: Array, dtype: str) -> Array:
    """The values, in float32, of 16-bit numbers."""
    if dtype == "float16":
        return halves.view(np.float16).astype(np.float32)
    return (halves.astype(np.uint32) << 16).view(np.float32)


def arguments(case: Case, choice: Choice, data: Data) -> tuple[dict[str, Any], slice]:
    """The kernel's arguments by name, and the words of the arena that are the result: x, r, y, scratch follow each
    other, each of its type."""
    height, width = case.size
    pixel_in, pixel_out = lanes(case, case.channels), lanes(case, case.features) + case.apart
    maps, result = case.shape.maps, case.shape.result
    parts = [
        stored(nhwc(data.x, pixel_in), maps), stored(nhwc(data.residual, pixel_out), maps),
        np.full(case.images * height * width * pixel_out // ELEMENTS[result], NOTHING, np.float32),
        np.full(choice.scratch, NOTHING, np.float32),
    ]  # fmt: skip
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    bias = np.zeros(lanes(case, case.features), np.float32)
    bias[: case.features] = data.bias
    each = 1 if choice.by_words else ELEMENTS[maps]  # elements in what x counts, to a word
    pixel_x = pixel_in * each // ELEMENTS[maps]
    named: dict[str, Any] = {
        "arena": np.concatenate(parts), "x": starts[0] * each, "r": starts[1] * ELEMENTS[maps],
        "y": starts[2] * ELEMENTS[result], "scratch": starts[3],
        "w": choice.pack(data.weight.transpose(0, 2, 3, 1)), "bias": bias,
        "counters": np.zeros(max(1, choice.counters), np.int32),
        "low": np.float32(case.low), "high": np.float32(case.high), "a": np.float32(0.1),
        "images": case.images, "in_height": case.height, "in_width": case.width, "channels": pixel_in,
        "height": height, "width": width, "features": lanes(case, case.features), "outputs": case.features,
        "taps_h": case.kernel[0], "taps_w": case.kernel[1], "stride_h": case.stride[0], "stride_w": case.stride[1],
        "top": case.pad[0], "left": case.pad[1], "dilation_h": case.dilation[0], "dilation_w": case.dilation[1],
        **_strides("x", case.height, case.width, pixel_x), **_strides("y", height, width, pixel_out),
        **_strides("r", height, width, pixel_out), **choice.arguments,
    }  # fmt: skip
    return named, slice(starts[2], starts[3])


def _strides(name: str, height: int, width: int, pixel: int) -> dict[str, int]:
    return {f"{name}_image": height * width * pixel, f"{name}_row": width * pixel, f"{name}_pixel": pixel}


def kinds(named: Mapping[str, Any]) -> dict[str, str]:
    """The types of arguments by name, as a plan's steps have them."""

    def kind(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"{value.dtype.name}[]"
        return "float32" if isinstance(value, np.float32) else "int64"

    return {name: kind(value) for name, value in named.items()}


def launch(choice: Choice, named: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A kernel's launch as plans have it, and its arrays: on the GPU, or where numba.cuda's simulator has them."""
    runtime = device.runtime()
    mine = {name: named[name] for name in choice.kernel.parameters}
    there = {name: runtime.upload(a) if isinstance(a, np.ndarray) else a for name, a in mine.items()}
    return runtime.Launch(choice.kernel, kinds(mine), choice.geometry, there, device.find().capability), there


def run(case: Case, choice: Choice, data: Data) -> tuple[Array, Array, Array]:
    """The result [N, H, W, pixel] of a launch on the GPU or in numba.cuda's simulator; and what the launch left in the
    counters, and the result of a second launch over the first."""
    named, place = arguments(case, choice, data)
    start, there = launch(choice, named)
    stream, results = device.runtime().Stream(), []

    def fetched(name: str) -> Array:
        values = np.zeros_like(named[name])
        if name in there:
            stream.fetch(there[name], values)
            stream.wait()
        return values

    for _ in range(2 if choice.counters else 1):
        with np.errstate(all="ignore"):
            start(stream)
        results.append(loaded(fetched("arena")[place], case.shape.result))
    shape = (case.images, *case.size, lanes(case, case.features) + case.apart)
    return results[0].reshape(shape), fetched("counters"), results[-1].reshape(shape)


def values(kernel: Kernel, named: Mapping[str, Any]) -> list[Any]:
    """Arguments in the order of the kernel's parameters, integers 32 bits wide where it wants them so, else 64."""
    widths = {name: np.int32 if name in kernel.narrow else np.int64 for name in kernel.parameters}
    return [width(named[name]) if isinstance(named[name], int) else named[name] for name, width in widths.items()]


def run_far(case: Case, choice: Choice, data: Data) -> Array:
    """The result of a launch on the simulator, images 2^32 floats apart in an arena that holds only what is used.

    For maps in float32.
    """
    from netdsl.backends.cuda.simt import cuda

    named, _ = arguments(case, choice, data)
    arena, apart, far = named["arena"], 2**32, dict[int, Any]()
    starts = {"x": 2**34, "r": 2**35, "y": 2**36}
    for name, start in starts.items():
        near, step = named[name], named[f"{name}_image"]
        for n in range(case.images):
            far.update(zip(range(start + n * apart, start + n * apart + step), arena[near + n * step :], strict=False))
    size, step = choice.scratch, named["y_image"]
    far.update(zip(range(2**37, 2**37 + size), arena[named["scratch"] :], strict=True))
    moved = named | starts | {f"{name}_image": apart for name in starts} | {"arena": far, "scratch": 2**37}
    kernel = cuda.jit(choice.kernel.build())
    kernel[choice.geometry.grid, choice.geometry.block](*values(choice.kernel, moved))
    found = [[far[starts["y"] + n * apart + i] for i in range(step)] for n in range(case.images)]
    return np.array(found, np.float32).reshape(case.images, *case.size, lanes(case, case.features) + case.apart)
