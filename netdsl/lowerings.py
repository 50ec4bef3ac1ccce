"""One network on several devices side by side: answers compared, then times, and where one overtakes another.

Devices are compared with the first that is named. Their calls take turns as engines do in `netdsl.benchmark`. Times are
those of whole calls, NumPy arrays in and out; on a GPU their parts are timed apart, by its own clock.
"""

from __future__ import annotations

import gc
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from netdsl import benchmark
from netdsl import weights as stored
from netdsl.benchmark import Report, Rules, interleave, listed, noise
from netdsl.compiler import compile
from netdsl.errors import NetWarning
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.model import Model
from netdsl.ops.base import Array
from netdsl.peers import TOLERANCE, difference
from netdsl.profiles import Phases
from netdsl.tensor import Shape


@dataclass(frozen=True)
class Start:
    """Seconds from `netdsl.compile` to a model ready for a batch, in a fresh process.

    cold: no kernel is kept from before; warm: all are
    """

    cold: float
    warm: float


@dataclass(frozen=True)
class Run:
    """One device on one batch: the median, 10th and 90th percentile of a call in seconds, None where it was not timed.

    difference  of its answer from the first device's, relative to the largest value
    phases      the parts of a call, on a device with memory of its own
    """

    device: str
    batch: int
    difference: float = 0.0
    median: float | None = None
    low: float | None = None
    high: float | None = None
    phases: Phases | None = None

    @property
    def wrong(self) -> bool:
        """Whether its answer is not the first device's."""
        return self.difference > TOLERANCE

    @property
    def throughput(self) -> float | None:
        """Images a second."""
        return self.batch / self.median if self.median else None


@dataclass(frozen=True)
class Crossing:
    """Up to about this batch size `slower` took less time, beyond it `faster` does."""

    batch: float
    faster: str
    slower: str


@dataclass(frozen=True)
class SideBySide:
    """A network on several devices. inputs: shapes without the batch; devices: each in words; threads: of the host."""

    network: str
    inputs: tuple[Shape, ...]
    macs: int
    threads: int
    devices: Mapping[str, str]
    start_batch: int
    starts: Mapping[str, Start]
    runs: tuple[Run, ...]

    @property
    def wrong(self) -> bool:
        """Whether any answer differs."""
        return any(run.wrong for run in self.runs)

    def timed(self, device: str) -> dict[int, float]:
        """Seconds an image by batch size."""
        return {r.batch: r.median / r.batch for r in self.runs if r.device == device and r.median}

    @property
    def crossings(self) -> tuple[Crossing, ...]:
        """Where each further device and the first overtake each other."""
        first, *others = self.devices
        return tuple(c for other in others for c in crossings(first, self.timed(first), other, self.timed(other)))

    def as_dict(self) -> dict[str, Any]:
        runs = [asdict(run) | {"images_per_second": run.throughput} for run in self.runs]
        return asdict(self) | {"runs": runs, "crossings": [asdict(c) for c in self.crossings]}


def crossings(
    first: str, times: Mapping[int, float], other: str, others: Mapping[int, float]
) -> Iterator[Crossing]:  # fmt: skip
    """Where the times of two devices cross between batch sizes that both were timed at.

    times, others  seconds an image by batch size; between these they run straight on logarithmic scales
    """
    batches = sorted(set(times) & set(others))
    far = [math.log(others[b] / times[b]) for b in batches]
    for i in range(len(batches) - 1):
        if (far[i] <= 0) != (far[i + 1] <= 0):
            part = far[i] / (far[i] - far[i + 1])
            at = batches[i] * (batches[i + 1] / batches[i]) ** part
            yield Crossing(at, *((other, first) if far[i] > far[i + 1] else (first, other)))


def side_by_side(
    sources: Sequence[str | Path], devices: Sequence[str], batches: Sequence[int] = (1,), rules: Rules | None = None,
    params: Mapping[str, Any] | None = None, report: Report | None = None,
) -> Iterator[SideBySide]:  # fmt: skip
    """Compare devices on each network, one after another; weights are random, inputs noise.

    devices  two or more of `netdsl.model.DEVICES`

    Errors: those of `netdsl.compile`.
    """
    rules, total = rules or Rules(), len(batches) + 1
    for i, source in enumerate(sources):
        graph = build(source, params=params)

        def tell(what: str, done: int, before: int = i * total, name: str = graph.name) -> None:
            if report:
                report(f"{name}, {what}", before + done, total * len(sources))

        tell("compiling", 0)
        starts = {device: start(graph, device, batches[0], rules) for device in devices}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NetWarning)
            weights = stored.random_weights(graph, rules.seed)
            models = {device: compile(graph, weights, device, rules.threads) for device in devices}
        runs: list[Run] = []
        for j, batch in enumerate(batches):
            tell(f"batch {batch}", 1 + j)
            runs += run(models, batch, rules)
            gc.collect()
        shapes, named = tuple(s.type.shape for s in graph.inputs), {d: m.device_name for d, m in models.items()}
        threads = max(model.threads for model in models.values())
        yield SideBySide(graph.name, shapes, graph.macs, threads, named, batches[0], starts, tuple(runs))


def run(models: Mapping[str, Model], batch: int, rules: Rules) -> list[Run]:
    """One batch on each device: first the answers, then the times. Nothing is timed when any answer differs."""
    inputs = noise(next(iter(models.values())).graph, batch, rules.seed)
    calls = {device: partial(_answer, model, inputs) for device, model in models.items()}
    answers = {device: call() for device, call in calls.items()}
    expected = next(iter(answers.values()))
    found = {device: Run(device, batch, difference(given, expected)) for device, given in answers.items()}
    if any(r.wrong for r in found.values()):
        return list(found.values())
    times = interleave(calls, rules.rounds, rules.seconds)
    runs = []
    for device, model in models.items():
        low, median, high = (float(q) for q in np.percentile(times[device], (10, 50, 90)))
        parts = model.phases(*inputs, rounds=rules.rounds)
        runs.append(Run(device, batch, found[device].difference, median, low, high, parts))
    return runs


def _answer(model: Model, inputs: Sequence[Array]) -> list[Array]:
    return listed(model(*inputs))


def start(graph: Graph, device: str, batch: int, rules: Rules) -> Start:
    """How long it takes to get ready in a process of its own, the first time and the next."""
    with TemporaryDirectory(prefix="netdsl-") as folder:
        cold, warm = (_in_a_process(folder, ready, graph, device, batch, rules) for _ in range(2))
    return Start(cold, warm)


def _in_a_process(cache: str, function: Callable[..., float], *arguments: Any) -> float:
    """The result of a function in a fresh process that keeps its kernels in a folder."""
    with ProcessPoolExecutor(1, get_context("spawn"), _keep_in, (cache,)) as pool:
        return pool.submit(function, *arguments).result()


def _keep_in(cache: str) -> None:
    os.environ["NETDSL_CACHE"] = cache


def ready(graph: Graph, device: str, batch: int, rules: Rules) -> float:
    """Seconds from `netdsl.compile` to a model that is ready for a batch."""
    weights = stored.random_weights(graph, rules.seed)
    begun = time.perf_counter()
    compile(graph, weights, device, rules.threads).prepare(batch)
    return time.perf_counter() - begun


def facts(devices: Sequence[str]) -> dict[str, Any]:
    """What a comparison was made on: `benchmark.facts`, and the GPU with its driver and packages if one took part."""
    told = benchmark.facts()
    if "cuda" in devices:
        from netdsl.backends.cuda import device

        told["gpu"] = device.facts()
    return told


HEADINGS = ("network", "batch", "device", "ms", "10%", "90%", "images/s", "to GPU ms", "compute ms", "from GPU ms")
RIGHT = (1, 3, 4, 5, 6, 7, 8, 9)  # the columns of figures


def cells(found: SideBySide) -> list[tuple[str, ...]]:
    """The runs of a network as the texts under HEADINGS."""
    rows = []
    for r in found.runs:
        parts = (r.phases.to_device, r.phases.compute, r.phases.from_device) if r.phases else (None,) * 3
        times = [_milliseconds(t) for t in (r.median, r.low, r.high)]
        rate = f"{r.throughput:.4g}" if r.throughput else "-"
        rows.append((found.network, str(r.batch), r.device, *times, rate, *map(_milliseconds, parts)))
    return rows


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def remarks(found: SideBySide) -> list[str]:
    """What else is to be said of a network: answers that differ, who overtakes whom, times to get ready; lines."""
    first, *others = found.devices
    lines = [
        f"{found.network}, batch {r.batch}: the answer of {r.device} differs from that of {first} by "
        f"{r.difference:.1e} of the largest value: nothing was timed"
        for r in found.runs if r.wrong
    ]  # fmt: skip
    for other in others:
        lines += [f"{found.network}: {line}" for line in _overtaking(found, first, other)]
    for device, s in found.starts.items():
        lines.append(
            f"{found.network} on {device}: ready for batch {found.start_batch} in {s.cold:.2f} s, "
            f"{s.warm:.2f} s with kept kernels"
        )
    return lines


def _overtaking(found: SideBySide, first: str, other: str) -> list[str]:
    times, others = found.timed(first), found.timed(other)
    both = sorted(set(times) & set(others))
    if not both:
        return []
    over = list(crossings(first, times, other, others))
    if over:
        return [f"from batch {c.batch:.3g} on {c.faster} takes less time an image than {c.slower}" for c in over]
    faster, slower = (other, first) if others[both[0]] < times[both[0]] else (first, other)
    return [f"{faster} is faster than {slower} at every batch size measured"]
