"""Rewrites of the graph, in the order they run. Each keeps the function that the graph computes."""

from __future__ import annotations

from netdsl.graph.ir import Graph
from netdsl.passes.drop_identities import drop_identities
from netdsl.passes.filters_to_depthwise import filters_to_depthwise
from netdsl.passes.fold_batchnorm import fold_batchnorm
from netdsl.passes.fold_forward import fold_forward
from netdsl.passes.fuse_epilogues import fuse_activations, fuse_additions
from netdsl.passes.merge_chains import merge_chains
from netdsl.passes.merge_siblings import merge_siblings
from netdsl.passes.pool_first import pool_first
from netdsl.passes.rewrite import Pass
from netdsl.passes.sum_branches import sum_branches

LINEAR: tuple[Pass, ...] = (fold_batchnorm, fold_forward, merge_chains, sum_branches, merge_siblings)


def simplify_linear(graph: Graph) -> Graph:
    """The passes of LINEAR by turns, until none finds more: what one makes, another may take further.

    That ends, as each leaves fewer nodes or fewer inputs of nodes, or the graph itself.
    """
    while True:
        before = graph
        for run in LINEAR:
            graph = run(graph)
        if graph is before:
            return graph


PASSES: tuple[Pass, ...] = (
    drop_identities,
    filters_to_depthwise,
    simplify_linear,  # before fusing: an epilogue would stand between a layer and its neighbours
    pool_first,  # before fusing, which would hide the activation
    fuse_additions,  # before activations: in a residual block the addition comes first
    fuse_activations,
    merge_siblings,  # again, after fusing: with the same activation they are alike
)


def rewrite(graph: Graph) -> Graph:
    """The graph after every pass."""
    for run in PASSES:
        graph = run(graph)
    return graph
