"""Choice of kernel, tile and launch of a convolution, from its shape and the kind of GPU alone.

A convolution is a product of matrices: rows are the output pixels of all images, columns the output channels (of one
group), depth the window's taps x channels, channels rounded up to chunks of 16 bytes. `choose` estimates the clock
cycles of every tile, and of every number of blocks that could share a tile's depth, and takes the least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from netdsl.backends.cuda.packing import F32, SLICE, TURN, pack_depthwise, pack_gemm, pack_mma
from netdsl.backends.cuda.precision import map_type
from netdsl.backends.cuda.steps import Geometry, Kernel
from netdsl.backends.cuda.views import ELEMENTS, lanes_of, padded

MOST = 2**31 - 1  # of pixels, of packed weights: kernels count them in 32 bits
MOST_SIDE = 2**15 - 512  # of a map, padding and window included: kernels hold a corner in 16 + 16 bits
GRID_SIDE = 65535  # blocks along y and z of a grid (CUDA programming guide, compute capability)
FLOATS_PER_CYCLE = 6  # chosen: what one multiprocessor gets from the second-level cache while all ask
LATENCY = 1500  # chosen: cycles to start a block, fill its stages and write its results
SHARING = 2500  # chosen: cycles for blocks that share a tile to meet
SHARED = 64 * 1024  # bytes of shared memory of a multiprocessor without asynchronous copies (capability 7.5)
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
FEW_IMAGES = 8  # chosen: up to so many pixels the weights are read once, not multiplied by tiles of empty rows
STRIP = 16  # chosen: results of a depthwise thread's line, pixels x channels
MOST_ACROSS = 64  # chosen: registers for the input pixels of such a line


@dataclass(frozen=True)
class Target:
    """A kind of GPU: its compute capability, and how many multiprocessors it has."""

    cc: tuple[int, int] = (9, 0)
    multiprocessors: int = 132

    @property
    def asynchronous(self) -> bool:
        """Whether copies from global to shared memory may go by themselves."""
        return self.cc >= (8, 0)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that kernels can multiply in."""
        return ("float32", "tf32", "float16", "bfloat16") if self.cc >= (8, 0) else ("float32",)


@dataclass(frozen=True)
class ConvShape:
    """What a convolution's kernel depends on.

    height, width   of the output
    channels, features   true counts, of all groups
    kernel          taps of the window, down and across
    residual        whether a map is added
    function        name of the elementwise function applied last, or None
    precision       of the factors; sums are float32 always. In half precision the input and the map that is added are
                    of that type in memory
    flat            pixels of input, output and residual follow each other without gaps
    dilation        from tap to tap, down and across; 0 where it is not known
    result          type of the result in memory: float32, or in half precision that of the input
    """

    images: int
    height: int
    width: int
    channels: int
    features: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    residual: bool
    function: str | None
    precision: str
    flat: bool
    groups: int = 1
    dilation: tuple[int, int] = (0, 0)
    result: str = "float32"

    @property
    def maps(self) -> str:
        """Type of the input, and of the map that is added, in memory."""
        return map_type(self.precision)

    @property
    def types(self) -> tuple[str, ...]:
        """What a kernel's constants say of types in memory beside the precision."""
        return (self.result,) if self.maps != "float32" else ()

    @property
    def lanes(self) -> int:
        """Channels of a chunk: 16 bytes of the input."""
        return lanes_of(self.maps)

    @property
    def pixels(self) -> int:
        """Rows of the product."""
        return self.images * self.height * self.width

    @property
    def chunks(self) -> int:
        """Chunks that a group reads at each tap."""
        return -(-(self.channels // self.groups) // self.lanes)

    @property
    def columns(self) -> int:
        """Columns of a group's product: its output channels, rounded up to the lanes of maps."""
        return padded(self.features // self.groups, self.lanes)

    @property
    def slices(self) -> int:
        """Slices of the product's depth."""
        return -(-self.kernel[0] * self.kernel[1] * self.chunks // (SLICE // 4))


@dataclass(frozen=True)
class Choice:
    """A kernel and its launch.

    pack        makes the kernel's weights, 1-D, from [K, R, S, C / groups]
    pack_key    what their form depends on
    arguments   integers that the kernel takes beside those of every convolution
    scratch     floats of the arena; counters: int32 zeros, which every launch leaves zero
    by_words    whether the kernel counts the input in words of 4 bytes, as it only copies chunks of it
    """

    kernel: Kernel
    geometry: Geometry
    pack: Callable[[F32], F32]
    pack_key: tuple[Any, ...]
    arguments: Mapping[str, int] = field(default_factory=dict)
    scratch: int = 0
    counters: int = 0
    by_words: bool = False


@dataclass(frozen=True)
class Tile:
    """A tile of results that a block of threads makes.

    part        of a warp's share: results of one thread (float32), or of one warp (tensor cores), 32 wide or more
    resident    blocks that a multiprocessor holds: what registers and shared memory are compiled for
    speed       multiply-accumulates per cycle and multiprocessor, once there are enough warps. Chosen: of the peak the
                part that 16-byte loads of shared memory leave
    """

    block_m: int
    block_n: int
    part: tuple[int, int]
    threads: int
    stages: int
    resident: int
    speed: float

    @property
    def area(self) -> int:
        """Results."""
        return self.block_m * self.block_n

    def shared_bytes(self, stages: int) -> int:
        """Of shared memory for so many slices."""
        return stages * 4 * SLICE * (self.block_m + self.block_n)


FMA_TILES = (
    Tile(128, 64, (8, 8), 128, 3, 3, 112),
    Tile(128, 32, (8, 4), 128, 3, 4, 96),
    Tile(64, 64, (8, 4), 128, 3, 4, 96),
    Tile(64, 32, (4, 4), 128, 4, 5, 64),
    Tile(32, 64, (4, 4), 128, 4, 5, 64),
    Tile(32, 32, (4, 4), 64, 4, 8, 64),
)
MMA_TILES = (
    Tile(256, 128, (64, 64), 256, 2, 1, 600),
    Tile(128, 128, (64, 64), 128, 3, 2, 560),
    Tile(128, 64, (64, 32), 128, 3, 3, 480),
    Tile(64, 64, (32, 32), 128, 3, 4, 360),
    Tile(64, 32, (16, 32), 128, 4, 6, 260),
    Tile(32, 64, (16, 32), 128, 4, 6, 260),
    Tile(32, 32, (16, 32), 64, 4, 8, 180),
)


def choose(shape: ConvShape, target: Target) -> Choice | None:
    """The fastest kernel by estimate, or None where only the kernel that takes anything serves.

    Raises ValueError for a precision that the target lacks.
    """
    if shape.precision not in target.precisions:
        raise ValueError(f"{shape.precision} is none of {', '.join(target.precisions)}")
    if not countable(shape):
        return None
    if shape.groups > 1:
        if shape.groups == shape.channels == shape.features:
            return depthwise_choice(shape)
        channels, features = shape.channels // shape.groups, shape.features // shape.groups
        if channels % shape.lanes or features % shape.lanes or features < 16:
            return None
    if shape.pixels <= FEW_IMAGES and shape.groups == 1:
        return gemv_choice(shape, target)
    return gemm_choice(shape, target, *best_tile(shape, target))


def countable(shape: ConvShape) -> bool:
    """Whether the counts fit the 32 or 16 bits that kernels keep them in, and the groups the grid."""
    sides = max(
        size * stride + taps * max(1, abs(dilation))
        for size, stride, taps, dilation in zip(
            (shape.height, shape.width), shape.stride, shape.kernel, shape.dilation, strict=True
        )
    )
    weights = shape.groups * (shape.slices + 1) * SLICE * padded(shape.columns, TURN)
    return max(shape.pixels + 128, weights) <= MOST and sides <= MOST_SIDE and shape.groups <= GRID_SIDE


def gemm_choice(shape: ConvShape, target: Target, tile: Tile, splits: int) -> Choice:
    """The launch of a tile, `splits` blocks sharing the depth of each."""
    exact = shape.precision == "float32"
    constants: tuple[int | str | None, ...]
    if exact:
        stages, copies = (tile.stages, "async") if target.asynchronous else (2, "register")
        resident = tile.resident if target.asynchronous else min(tile.resident, SHARED // tile.shared_bytes(2))
        constants = (tile.block_m, tile.block_n, *tile.part, stages, copies, resident, shape.function)
    else:
        constants = (
            tile.block_m, tile.block_n, *tile.part, tile.stages, shape.precision, tile.resident, shape.function,
            *shape.types,
        )  # fmt: skip
    tiles_n = -(-shape.columns // tile.block_n)
    tiles = -(-shape.pixels // tile.block_m) * tiles_n
    geometry = Geometry((tiles, shape.groups, splits), (tile.threads, 1, 1))
    w_columns = shape.columns if exact else padded(shape.columns, TURN)
    arguments = gemm_arguments(shape, w_columns) | {"splits": splits, "tiles_n": tiles_n}
    shared = tiles * shape.groups if splits > 1 else 0
    kernel = Kernel("gemm", "gemm" if exact else "mma", constants)
    pack, name = (pack_gemm, "gemm") if exact else (pack_mma, "mma")
    return Choice(
        kernel, geometry, partial(pack, groups=shape.groups, precision=shape.precision), (name, shape.precision),
        arguments, shared * splits * tile.area, shared, by_words=True,
    )  # fmt: skip


def gemm_arguments(shape: ConvShape, w_columns: int) -> dict[str, int]:
    """How the depth is counted: slices, and four chunks on as an addition of (taps down, taps across, chunks).

    w_columns: of a row of packed weights.
    """
    chunks, taps_w = shape.chunks, shape.kernel[1]
    taps_on = (SLICE // 4) // chunks
    return {
        "chunks": chunks, "slices": shape.slices, "columns": shape.columns, "has_residual": int(shape.residual),
        "x_group": shape.channels // shape.groups // ELEMENTS[shape.maps],
        "w_columns": w_columns, "w_group": shape.slices * SLICE * w_columns,
        "step_c": (SLICE // 4) % chunks, "step_s": taps_on % taps_w, "step_r": taps_on // taps_w,
    }  # fmt: skip


def best_tile(shape: ConvShape, target: Target) -> tuple[Tile, int]:
    """The tile and the number of blocks that share its depth with the least estimated time."""
    tiles = FMA_TILES if shape.precision == "float32" else MMA_TILES
    options = [(tile, splits) for tile in tiles for splits in SPLITS if splits == 1 or splits * 4 <= shape.slices]
    return min(options, key=lambda option: cycles(shape, target, *option))


def cycles(shape: ConvShape, target: Target, tile: Tile, splits: int) -> float:
    """Estimated clock cycles of the whole product.

    Blocks are dealt to multiprocessors evenly. One is as fast as its warps can hide latency, half as fast at three of
    them, and no faster than its slices arrive. In half precision a slice holds twice the depth, and tensor cores are
    twice as fast. Blocks that share a depth write their sums, and the last reads them all.
    """
    tiles = -(-shape.pixels // tile.block_m) * -(-shape.columns // tile.block_n) * shape.groups
    each = -(-tiles * splits // target.multiprocessors)
    together = min(each, tile.resident)
    warps = together * tile.threads / 32
    depth = -(-shape.slices // splits) * SLICE
    multiply = depth * tile.area / (tile.speed * warps / (warps + 3))
    arrive = depth * (tile.block_m + tile.block_n) / FLOATS_PER_CYCLE
    rounds = -(-each // together)
    meet = 0.0
    if splits > 1:
        passed = each + splits * -(-tiles // target.multiprocessors)  # tiles of sums written and read
        meet = SHARING + passed * tile.area / FLOATS_PER_CYCLE
    return each * max(multiply, arrive) + rounds * LATENCY + meet


def gemv_choice(shape: ConvShape, target: Target) -> Choice:
    """Few pixels: every weight is read once by somebody, and multiplied with all pixels there.

    In half precision weights are stored so, as reading them is what takes the time.
    """
    images = 1 << (shape.pixels - 1).bit_length() if shape.pixels else 1
    tiles = -(-shape.columns // 32)
    wanted = -(-4 * target.multiprocessors // tiles)
    splits = max(1, min(wanted, shape.slices // 8, SPLITS[-1]))
    arguments = gemm_arguments(shape, shape.columns) | {"splits": splits}
    shared = tiles if splits > 1 else 0
    stored = shape.maps
    kernel = Kernel("gemv", "gemv", (images, shape.function, stored, *shape.types))
    return Choice(
        kernel, Geometry((tiles, splits, 1), (256, 1, 1)),
        partial(pack_gemm, groups=1, precision=stored), ("gemm", stored),
        arguments, shared * splits * 32 * images, shared, by_words=True,
    )  # fmt: skip


def depthwise_choice(shape: ConvShape) -> Choice | None:
    """A thread makes a strip of outputs for 16 bytes of channels; wide windows go to the kernel that takes anything."""
    if not all(shape.dilation) or min(shape.dilation) < 0:
        return None
    close = shape.stride[0] == shape.dilation[0] == 1 and shape.height > 1
    lines = 2 if close and shape.kernel[0] > 1 and shape.kernel[1] <= 5 else 1  # more taps do not unroll for two
    longest = STRIP // shape.lanes
    strip = longest if shape.width >= longest else (2 if shape.width > 1 else 1)
    across = (strip - 1) * shape.stride[1] + (shape.kernel[1] - 1) * shape.dilation[1] + 1
    if across * shape.lanes > MOST_ACROSS:
        return None
    chunks = -(-shape.channels // shape.lanes)
    threads = shape.images * -(-shape.height // lines) * -(-shape.width // strip) * chunks
    types = (shape.maps, *shape.types) if shape.types else ()
    constants = (*shape.kernel, *shape.stride, *shape.dilation, lines, strip, shape.function, *types)
    return Choice(
        Kernel("depthwise", "depthwise", constants), Geometry((-(-threads // 128), 1, 1), (128, 1, 1)),
        partial(pack_depthwise, lanes=shape.lanes), ("depthwise",), {"has_residual": int(shape.residual)},
    )  # fmt: skip
