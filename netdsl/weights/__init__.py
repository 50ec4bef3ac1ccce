"""Weights: read from files without running anything in them, matched with a network, downloaded, or random."""

from typing import TYPE_CHECKING, Any

from netdsl.weights.choose import WeightSet, published, resolve
from netdsl.weights.files import load
from netdsl.weights.matching import match
from netdsl.weights.seeded import random_weights

if TYPE_CHECKING:
    from netdsl.weights.download import cache_dir, fetch

__all__ = ["WeightSet", "cache_dir", "fetch", "load", "match", "published", "random_weights", "resolve"]


def __getattr__(name: str) -> Any:
    """`fetch` and `cache_dir` load the HTTP client, which few programs need."""
    if name not in ("cache_dir", "fetch"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from netdsl.weights import download

    return getattr(download, name)
