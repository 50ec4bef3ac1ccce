"""Large maps between a convolution and a depthwise one: made and read some channels at a time, so that they stay in the
caches and need less memory.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import pairwise

from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import tile_for
from netdsl.graph.ir import Graph
from netdsl.ops.conv import Conv

STREAM_BYTES = 3 << 20  # chosen (bench/choices.py tries others): the largest map of an image that is made whole


def streamed_maps(
    graph: Graph, winograd: Container[int], planar: Container[int], together: Sequence[int]
) -> dict[int, int]:
    """For each map that is streamed, how many channel blocks of it are made at a time: whole tiles of outputs.

    winograd, planar    nodes whose results other kernels make
    together            images that go through each node together
    """
    readers = graph.consumers()
    outputs = {spec.node for spec in graph.outputs}
    found = {}
    for i, (node, reader) in enumerate(pairwise(graph.nodes)):
        if not isinstance(node.op, Conv) or node.op.groups > 1 or i in winograd or i in planar or i in outputs:
            continue
        depthwise = isinstance(reader.op, Conv) and reader.op.is_depthwise(node.type.channels) and i + 1 not in planar
        if not depthwise or readers[i] != [i + 1] or together[i] != together[i + 1]:
            continue
        _, height, width = node.type.shape
        blocks = -(-node.type.channels // WIDTH)
        block_bytes = 4 * WIDTH * height * width
        cols = tile_for(width, blocks, height).cols
        fitting = max(1, STREAM_BYTES // (block_bytes * cols)) * cols
        if fitting < blocks:
            found[i] = fitting
    return found
