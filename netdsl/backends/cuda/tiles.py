"""Choice of the kernel and tile of a convolution, from its shape alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from netdsl.backends.cuda.steps import Geometry, Kernel


@dataclass(frozen=True)
class Target:
    cc: tuple[int, int] = (9, 0)
    multiprocessors: int = 132


@dataclass(frozen=True)
class ConvShape:
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


@dataclass(frozen=True)
class Choice:
    kernel: Kernel
    geometry: Geometry
    pack: Callable[..., Any]
    pack_key: tuple[Any, ...]
    arguments: Mapping[str, int] = field(default_factory=dict)
    scratch: int = 0
    counters: int = 0


def choose(shape: ConvShape, target: Target) -> Choice | None:
    return None
