"""The spine: from a text to a network that can be called.

    text --parse--> syntax tree --build--> graph --rewrite--> graph --plan--> plan --bind--> model

`compile` goes all the way; `stop_after` hands out what stands after a stage. Rewriting and planning are the device's
affair, so `compile` leaves them to the backend that the model is made with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netdsl import weights as stored
from netdsl.errors import InputError, NetWarning
from netdsl.graph import library
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.model import Model, Progress, checked_precision, choose_device, told
from netdsl.passes import rewrite
from netdsl.tensor import Shape

if TYPE_CHECKING:
    from netdsl.backends.cpu.tune import Tuning

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
    exact: bool = False,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Model:
    """Compile a network.

    source    a path, the bare name of a network that ships, the text itself, or a graph from `netdsl.build`
    weights   a path (.safetensors, .npz, PyTorch checkpoint), a mapping of arrays by name (not to be changed while the
              model is in use), "random", "pretrained" (the published weights), or None: what the network's `weights`
              line names if it is at hand, else random with a NetWarning
    device    "auto" (an NVIDIA GPU that can be used, else the CPU; the model's `device_name` says which), "cpu", "cuda"
              or "reference" (the NumPy interpreter); never another than asked
    threads   of the CPU; None: as many as the process has processors
    params    values for the network's parameters
    seed      of random weights
    inputs    shapes (C, H, W) by input name, for inputs with free sides (`?`) that should be ready at once
    exact     whether every convolution is a plain sum of products; else 3x3 ones may run by Winograd's algorithm, which
              is faster and within 1e-4 of the largest value
    precision "float32", or less for speed, within 1e-2 of the largest value; sums are float32. On the CPU "bfloat16" or
              "float16" ("bf16", "f16"): weights of dense layers that wait for memory are kept so, half as large. On a
              GPU these or "tf32": the products in convolutions and dense layers, by the tensor cores; maps between
              layers are then of that type too, but not "tf32"
    progress  called with (what, done, total) while weights are downloaded and kernels compiled; total 0 if unknown

    Errors: SourceError, WeightsError, InputError, DeviceError, FetchError (all NetError).
    """
    device = choose_device(device)
    precision = checked_precision(precision, device)
    graph = _built(source, params, inputs)
    found = stored.resolve(graph, weights, seed, _transfer(progress))
    if found.is_random and graph.tensors:
        warnings.warn(f"{graph.name} has {found.description}; its answers mean nothing", NetWarning, stacklevel=2)
    return Model(graph, found, device, threads, exact=exact, progress=progress, precision=precision)


def _transfer(progress: Progress | None) -> Callable[[int, int | None], None] | None:
    return progress and (lambda done, total: progress("downloading weights", done, total or 0))


def _built(source: Source, params: Mapping[str, Any] | None, inputs: Mapping[str, Shape] | None) -> Graph:
    if not isinstance(source, Graph):
        return build(source, params=params, input_shapes=inputs)
    if params or inputs:
        message = "a graph that is built has its params and input shapes already"
        raise InputError(message, code="built-already", hint="give them to netdsl.build")
    return source


STAGES = ("parse", "build", "rewrite", "plan")


def stop_after(
    stage: str,
    source: str | Path,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Shape] | None = None,
    images: int = 1,
    threads: int = 1,
) -> Any:
    """What stands after one of STAGES, for looking at: a syntax tree, a graph, the rewritten graph, the CPU's plan.

    images, threads  what the plan is for; it holds no weights

    Errors: SourceError, InputError.
    """
    if stage not in STAGES:
        raise InputError(f"no stage {stage!r}", code="unknown-stage", hint=f"there are {', '.join(STAGES)}")
    if stage == "parse":
        from netdsl.text.parse import parse  # loads Lark

        return parse(library.origin(source).source)
    graph = build(source, params=params, input_shapes=inputs)
    if stage == "build":
        return graph
    rewritten = rewrite(graph)
    if stage == "rewrite":
        return rewritten
    from netdsl.backends.cpu.ahead import plan_ahead

    return plan_ahead(graph, images, threads)


def warm(
    sources: Iterable[str | Path],
    params: Mapping[str, Any] | None = None,
    images: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
    precision: str = "float32",
) -> tuple[int, int]:
    """Compile the kernels of several networks into the user's cache, so that no process has to.

    images, threads, precision  what they are to be run with; as many threads as the process has processors when None
    progress                    called with (what, done, total) while kernels are compiled

    Returns how many kernels the networks need, and how many of them were compiled now.
    Errors: SourceError; DeviceError where this processor cannot have the precision; InputError for a precision that
    does not exist, and where the cache's folder does not keep the kernels.
    """
    from netdsl.backends.cpu import ahead

    precision = checked_precision(precision, "cpu")
    graphs = [build(source, params=params) for source in sources]
    return ahead.warm(graphs, images, threads, told(progress), precision)


def tune(
    source: str | Path,
    params: Mapping[str, Any] | None = None,
    images: int = 1,
    threads: int | None = None,
    rounds: int = 20,
    progress: Progress | None = None,
) -> Tuning:
    """Measure which algorithm runs each convolution of a network fastest on this CPU, and keep that.

    It is kept in the user's cache folder. Networks that are compiled afterwards, here and in other processes, for the
    same number of threads and images, take the choices that were kept. The weights are random: they do not change how
    long a layer takes.

    Errors: SourceError, InputError (cannot-write).
    """
    from netdsl.backends.cpu import tune

    graph = build(source, params=params)
    try:
        return tune.tune(graph, stored.random_weights(graph), images, threads, rounds, progress)
    except OSError as error:
        path, reason = error.filename and str(error.filename), error.strerror or str(error)
        message = f"what was measured cannot be kept: {reason}"
        raise InputError(message, code="cannot-write", path=path, hint="NETDSL_CACHE names another folder") from None
