"""Layers that take a batch's images a few at a time, so that what one layer made is in the caches for the next.

A stage is a run of layers that take as many images together. All its layers run for its first images, then all for the
next (depth first); the stages follow each other. What only one stage touches is kept for the images of a turn alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby

from netdsl.backends.cpu.views import Step
from netdsl.backends.cpu.winograd import depth_of, plain_convs
from netdsl.graph.ir import Graph
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv

TURN_BYTES = 2 << 20  # measured (bench/choices.py): of what one layer reads and writes in a turn


def images_together(graph: Graph, images: int, winograd: Mapping[int, int]) -> list[int]:
    """How many images of a batch go through each node together: divisors of the batch that never fall.

    So many as leave a layer's maps in the caches, from the first layer on, as long as reading the weights again in
    every turn costs less than fetching the maps would. Later layers take the whole batch.

    winograd  the patch size by node, where Winograd's algorithm runs it
    """
    divisors = [n for n in range(images, 0, -1) if images % n == 0]
    fitting: list[int] = []
    for i, node in enumerate(graph.nodes):
        maps = 4 * sum(graph.nodes[j].type.elements for j in (i, *node.inputs))
        most = next((n for n in divisors if n * maps <= TURN_BYTES), 1)
        if not node.type.is_map or _weight_bytes(graph, i, winograd) > most * maps:
            break
        fitting.append(most)
    together = list(accumulate(reversed(fitting), min))[::-1]
    return together + [images] * (len(graph.nodes) - len(together))


def _weight_bytes(graph: Graph, index: int, winograd: Mapping[int, int]) -> int:
    """Of a convolution, as its kernel reads them."""
    node = graph.nodes[index]
    if not isinstance(node.op, Conv | Deconv):
        return 0
    if m := winograd.get(index):
        x = graph.nodes[node.inputs[0]].type
        return sum(4 * conv.features * depth_of(conv, x, m).starts[-1] for conv in plain_convs(node.op, x))
    return 4 * math.prod(node.weights["weight"].shape)


def stages(steps: Sequence[Step]) -> list[range]:
    """Runs of steps that take as many images together, as ranges of their numbers."""
    found, start = [], 0
    for _, run in groupby(steps, lambda step: step.images):
        found.append(range(start, start + len(list(run))))
        start = found[-1].stop
    return found


def in_turns(steps: Sequence[Step], images: int) -> list[tuple[int, int]]:
    """The order of work on a batch: each entry is the number of a step and the first image it takes."""
    return [
        (i, first)
        for stage in stages(steps)
        for first in range(0, images, steps[stage.start].images)
        for i in stage
    ]  # fmt: skip


def spanning(steps: Sequence[Step]) -> frozenset[int]:
    """Buffers that several stages touch: they hold the whole batch."""
    touched = [set().union(*(steps[i].buffers() for i in stage)) for stage in stages(steps)]
    return frozenset(b for k, here in enumerate(touched) for later in touched[k + 1 :] for b in here & later)


def buffers_in_use(steps: Sequence[Step], spans: frozenset[int], images: int) -> list[set[int]]:
    """The buffers that each step touches; while a stage goes through its turns, what it shares with another must stay.

    So those of the whole batch count from the first step of a stage of several turns to its last.
    """
    used = [step.buffers() for step in steps]
    for stage in stages(steps):
        if steps[stage.start].images == images:
            continue
        shared = spans & set().union(*used[stage.start : stage.stop])
        used[stage.start] |= shared
        used[stage.stop - 1] |= shared
    return used
