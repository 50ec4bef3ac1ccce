"""The spine: from a text to a network that can be called.

    text --parse--> syntax tree --build--> graph --rewrite--> graph --plan--> plan --bind--> model

`compile` goes all the way; `stage` stops after any step and hands out what stands there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from netdsl import weights as stored
from netdsl.errors import InputError, NetWarning
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.model import Model, Progress, choose_device
from netdsl.tensor import Shape

Source = str | Path | Graph
Weights = str | Path | Mapping[str, Any] | None


def compile(
    source: Source,
    weights: Weights = None,
    device: str = "auto",
    threads: int | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    inputs: Mapping[str, Shape] | None = None,
    *,
    progress: Progress | None = None,
) -> Model:
    """Compile a network.

    source    a path, the bare name of a network that ships, the text itself, or a graph from `netdsl.build`
    weights   a path (.safetensors, .npz, PyTorch checkpoint), a mapping of arrays by name, "random", "pretrained" (the
              published weights), or None: what the network's `weights` line names, else random with a NetWarning
    device    "auto" (the best there is), "cpu", "cuda" or "reference" (the NumPy interpreter); never another than asked
    threads   None: as many as the process has processors
    params    values for the network's parameters
    seed      of random weights
    inputs    shapes (C, H, W) by input name, for inputs with free sides (`?`) that should be ready at once
    progress  called with (what, done, total) while weights are downloaded and kernels compiled; total 0 if unknown

    Errors: SourceError, WeightsError, InputError, DeviceError, FetchError (all NetError).
    """
    device = choose_device(device)
    graph = _built(source, params, inputs)
    found = stored.resolve(graph, weights, seed, _transfer(progress))
    if found.is_random and graph.tensors:
        warnings.warn(f"{graph.name} has {found.description}; its answers mean nothing", NetWarning, stacklevel=2)
    return Model(graph, found, device, threads, progress=progress)


def _transfer(progress: Progress | None) -> Callable[[int, int | None], None] | None:
    return progress and (lambda done, total: progress("downloading weights", done, total or 0))


def _built(source: Source, params: Mapping[str, Any] | None, inputs: Mapping[str, Shape] | None) -> Graph:
    if not isinstance(source, Graph):
        return build(source, params=params, input_shapes=inputs)
    if params or inputs:
        message = "a graph that is built has its params and input shapes already"
        raise InputError(message, code="built-already", hint="give them to netdsl.build")
    return source
