"""Kernels as numba.cuda compiles them, to PTX, run without a GPU: single convolutions, and whole programs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from cuda_convolutions import Case, arguments, draw, kinds, lanes, loaded
from netdsl.backends.cuda import jit
from netdsl.backends.cuda.steps import Kernel
from netdsl.backends.cuda.tiles import Choice
from ptx.machine import Machine
from ptx.memory import Card
from ptx.text import Code, parse
from ptx.traffic import Traffic

Array = np.ndarray[Any, Any]

LACKING = [name for name in ("numba_cuda", "cuda") if importlib.util.find_spec(name) is None]
LACK = f"not installed: {', '.join(LACKING)} (pip install 'netdsl[cuda13]')" if LACKING else ""
CARD_BYTES = 1 << 24  # of a card for one convolution


def enter() -> None:
    """Make this process one whose GPU is the machine."""
    import virtual_driver

    np.seterr(all="ignore")
    virtual_driver.install(compiled=True)


def enter_large() -> None:
    """The same with a card for large networks, on which nobody watches who meets whom in memory."""
    import virtual_driver

    np.seterr(all="ignore")
    virtual_driver.install(compiled=True, bytes_there=1 << 31, watch=False)


@cache
def text(kernel: Kernel, types: tuple[tuple[str, str], ...], capability: tuple[int, int]) -> str:
    """A kernel's PTX."""
    return jit.to_ptx(kernel, dict(types), capability)[0]


def ptx_of(case: Case, choice: Choice, capability: tuple[int, int]) -> str:
    """The PTX of a convolution's kernel."""
    named, _ = arguments(case, choice, draw(case))
    types = {name: kind for name, kind in kinds(named).items() if name in choice.kernel.parameters}
    return text(choice.kernel, tuple(types.items()), capability)


def placed(card: Card, kernel: Kernel, named: Mapping[str, Any]) -> tuple[list[int], dict[str, int]]:
    """Arguments as words of 8 bytes, arrays copied to the card, and where those lie."""
    words, places = [], {}
    for name in kernel.parameters:
        value = named[name]
        if isinstance(value, np.ndarray):
            address = card.allocate(max(16, value.nbytes))
            assert address is not None
            card.view(address, value.size, value.dtype)[:] = value
            places[name] = address
            words += [0, 0, value.size, value.itemsize, address, value.size, value.itemsize]
        elif isinstance(value, np.float32):
            words.append(int(value.view(np.uint32)))
        else:
            words.append(int(value))
    return words, places


def run(
    case: Case,
    choice: Choice,
    data: Any,
    capability: tuple[int, int],
    code: Code | None = None,
    traffic: Traffic | None = None,
) -> tuple[Array, Array, Array]:
    """As `cuda_convolutions.run`: the result [N, H, W, pixel], what is left in the counters, and a second result."""
    named, place = arguments(case, choice, data)
    code = code or parse(ptx_of(case, choice, capability))
    card = Card(CARD_BYTES)
    machine = Machine(card, traffic=traffic)
    words, places = placed(card, choice.kernel, named)
    results = []
    with np.errstate(all="ignore"):
        for _ in range(2 if choice.counters else 1):
            machine.launch(code, choice.geometry.grid, choice.geometry.block, words)
            arena = card.view(places["arena"], named["arena"].size, np.float32)
            results.append(loaded(arena[place].copy(), case.shape.result))
    shape = (case.images, *case.size, lanes(case, case.features) + case.apart)
    counters = card.view(places["counters"], named["counters"].size, np.int32) if "counters" in places else np.zeros(1)
    return results[0].reshape(shape), counters, results[-1].reshape(shape)


class FarCard(Card):
    """A card on which the images of a map lie 2^34 bytes apart: those bits of an address are the image's number."""

    apart = 1 << 34
    image = 0  # bytes from one image to the next in the memory there is, of every map

    def places(self, addresses: Array, size: int) -> Array:
        offsets = addresses - self.base
        number = offsets // self.apart
        return super().places(self.base + offsets - number * (self.apart - self.image), size)
