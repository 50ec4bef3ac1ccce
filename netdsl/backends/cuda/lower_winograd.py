"""Lowering of a convolution to Winograd's algorithm: for each turn of images, inputs to V, products to M, M to outputs.

Arguments beside those of every convolution (`lower_linear.py`):

    v              V, or M: [image, patch down, patch across, cell, lane]
    down across    patches of an image
    channels lanes the true channels of the input, and the lanes of V or M
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from netdsl.backends.cuda.epilogue import Epilogue
from netdsl.backends.cuda.packing import pack_gemm
from netdsl.backends.cuda.planner import F32, Planner
from netdsl.backends.cuda.steps import Kernel, one_each
from netdsl.backends.cuda.tiles import best_tile, gemm_choice
from netdsl.backends.cuda.views import Address, Argument, Counters, View, padded
from netdsl.backends.cuda.winograd import THREADS, Patches, pack_winograd
from netdsl.graph.ir import Node


def emit_winograd(
    plan: Planner, node: Node, weight: Callable[[], F32], cut: Patches, top: int, left: int, x: View, y: View,
    end: Epilogue, work: int, part: str,
) -> None:  # fmt: skip
    """Emit a convolution. weight: makes [K, C, 3, 3]; work: its multiply-accumulates; part: its name in the node."""
    cells, m = cut.cells, cut.m
    v, sums = (plan.scratch(cut.floats(lanes)) for lanes in (x.lanes, y.lanes))
    packed = plan.bank.pack(
        (node.path, part, "winograd", m), lambda: pack_gemm(pack_winograd(weight(), m, x.lanes), cells, "float32")
    )
    nothing = plan.bank.channels(("no bias", cells * y.lanes), lambda: None, cells * y.lanes)
    bias = plan.channels(node, "bias", lambda: plan.bank.value(node, "bias"))
    for first in range(0, plan.images, cut.turn):
        images = min(cut.turn, plan.images - first)
        products = replace(cut.products, images=images)
        choice = gemm_choice(products, plan.target, *best_tile(products, plan.target))
        scratch = Address(plan.scratch(padded(choice.scratch))) if choice.scratch else 0
        patches: dict[str, Argument] = {"images": images, "down": cut.down, "across": cut.across}
        threads = images * cut.down * cut.across
        moved = threads * cells
        plan.emit(
            Kernel("winograd", "winograd_input", (m,)), one_each(threads * x.lanes, THREADS), node,
            moved * x.lanes, x=Address(x, first * x.image), v=Address(v), in_height=x.height, in_width=x.width,
            channels=x.channels, lanes=x.lanes, top=top, left=left, **x.strides("x"), **patches,
        )  # fmt: skip
        plan.emit(
            Kernel("winograd", "winograd_products", choice.kernel.constants), choice.geometry, node,
            work * images // plan.images, x=Address(v), y=Address(sums), w=packed, bias=nothing,
            images=images, in_height=cut.down, in_width=cut.across, height=cut.down, width=cut.across,
            taps_h=1, taps_w=1, stride_h=1, stride_w=1, top=0, left=0, dilation_h=1, dilation_w=1,
            **_strides("x", cut, cells * x.lanes), **_strides("y", cut, cells * y.lanes),
            r=0, r_image=0, r_row=0, r_pixel=0, low=-inf, high=inf, a=0.0,
            scratch=scratch, counters=Counters(choice.counters), **choice.arguments,
        )  # fmt: skip
        residual = {"r": Address(end.residual, first * end.residual.image)} if end.residual else {}
        plan.emit(
            Kernel("winograd", "winograd_output", (m, end.function)), one_each(threads * y.lanes, THREADS), node,
            moved * y.lanes, v=Address(sums), bias=bias, y=Address(y, first * y.image), height=y.height,
            width=y.width, lanes=y.lanes, has_residual=int(end.residual is not None), **y.strides("y"), **patches,
            **{**end.arguments(), **residual},
        )  # fmt: skip


def _strides(name: str, cut: Patches, pixel: int) -> dict[str, int]:
    """Of V or M as a map, a pixel for each patch."""
    return {f"{name}_image": cut.down * cut.across * pixel, f"{name}_row": cut.across * pixel, f"{name}_pixel": pixel}
