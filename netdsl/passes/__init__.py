"""Rewrites of the graph, in the order they run. Each keeps the function that the graph computes."""

from __future__ import annotations

from netdsl.graph.ir import Graph
from netdsl.passes.drop_identities import drop_identities
from netdsl.passes.filters_to_depthwise import filters_to_depthwise
from netdsl.passes.fold_batchnorm import fold_batchnorm
from netdsl.passes.fuse_epilogues import fuse_activations, fuse_additions
from netdsl.passes.pool_first import pool_first
from netdsl.passes.rewrite import Pass

PASSES: tuple[Pass, ...] = (
    drop_identities,
    filters_to_depthwise,
    fold_batchnorm,  # before fusing: an epilogue would stand between a layer and its normalisation
    pool_first,  # before fusing, which would hide the activation
    fuse_additions,  # before activations: in a residual block the addition comes first
    fuse_activations,
)


def rewrite(graph: Graph) -> Graph:
    """The graph after every pass."""
    for run in PASSES:
        graph = run(graph)
    return graph
