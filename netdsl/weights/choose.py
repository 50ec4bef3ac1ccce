"""From what the user asked for (nothing, a path, arrays, "random", "pretrained") to the tensors of a network."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

from netdsl.errors import InputError, WeightsError
from netdsl.frozen import frozen
from netdsl.graph.ir import Graph
from netdsl.ops.base import Array
from netdsl.weights import package
from netdsl.weights.files import load
from netdsl.weights.matching import match, unused
from netdsl.weights.seeded import random_weights
from netdsl.weights.tensors import WeightsFile, shown

Progress = Callable[[int, int | None], None]  # (bytes done, bytes in all or None where the server does not say)


@frozen
class WeightSet:
    """The weights a network gets.

    tensors       float32, C-contiguous, by the names of `Graph.tensors`; may be read-only views of a mapped file
    description   where they come from, in words that fit "with ..."
    is_random     whether they are random, so that the answers mean nothing
    """

    tensors: Mapping[str, Array]
    description: str
    is_random: bool = False


def resolve(
    graph: Graph,
    weights: str | Path | Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> WeightSet:
    """The weights for a graph.

    weights    a path, a mapping of array-likes by name, "random", "pretrained" (what the network's `weights` line
               names, downloaded if need be), or None: what that line names if it is at hand, else random
    seed       of random weights
    progress   called while weights are downloaded

    Raises WeightsError, InputError (bad-seed), and FetchError from downloads.
    """
    if isinstance(weights, Mapping):
        return WeightSet(match(graph, weights), f"{len(graph.tensors)} arrays given")
    if not isinstance(weights, (str, os.PathLike, type(None))):
        message = f"weights are a path, a mapping of arrays, random or pretrained; found a {type(weights).__name__}"
        raise WeightsError(message, code="weights-format")
    if weights == "random" or (weights is None and not _at_hand(graph)):
        return _random(graph, seed)
    path = published(graph, progress) if weights is None or weights == "pretrained" else Path(weights)
    tensors = load(path)
    found = match(graph, tensors)
    left_out = unused(graph, tensors)
    extra = f" (without its parts {', '.join(shown(part, 30) for part in left_out[:8])})" if left_out else ""
    return WeightSet(found, f"{path.name if weights is None else path}{extra}")


def _random(graph: Graph, seed: int) -> WeightSet:
    if not graph.tensors:
        return WeightSet({}, "no weights, as it needs none")
    if isinstance(seed, bool) or not isinstance(seed, SupportsIndex):
        raise InputError(f"the seed must be a whole number, found {seed!r}", code="bad-seed")
    seed = operator.index(seed)
    return WeightSet(random_weights(graph, seed), f"random weights (seed {seed})", is_random=True)


def _at_hand(graph: Graph) -> bool:
    """Whether the network's `weights` line names something on this machine. A plain path counts even if it is missing,
    for then the line is wrong; a package that is not installed, and a URL, are merely not at hand."""
    path = graph.weights.path if graph.weights else None
    return path is not None and (not package.is_package_path(path) or package.locate(path) is not None)


def published(graph: Graph, progress: Progress | None = None) -> Path:
    """The file that the network's `weights` line names; a URL's is downloaded unless it is in the cache.

    Raises WeightsError (weights-unpublished, weights-missing-package, …), and FetchError from downloads.
    """
    spec = graph.weights
    if spec is None or (spec.path is None and spec.url is None):
        message = f"{graph.name} names no published weights"
        raise WeightsError(message, code="weights-unpublished", hint="give a file, or random")
    if spec.path is None:
        from netdsl.weights.download import fetch  # loads the HTTP client, which nothing else needs

        return fetch(spec, progress)
    path = package.locate(spec.path) if package.is_package_path(spec.path) else Path(spec.path)
    if path is None:
        name = spec.path.removeprefix(package.PREFIX).partition("/")[0]
        message = f"its weights are in the package {name}, which is not installed"
        raise WeightsError(message, code="weights-missing-package", path=spec.path, hint=package.INSTALL)
    if spec.sha256:
        _check_digits(path, spec.sha256)
    return path


def _check_digits(path: Path, digits: str) -> None:
    """A local file whose sha256 the network states must be that file."""
    found = hashlib.sha256(WeightsFile(path).data).hexdigest()
    if not found.startswith(digits.lower()):
        message = f"its sha256 begins with {found[: len(digits)]}, the network states {digits}"
        raise WeightsError(message, code="weights-wrong-hash", path=str(path))
