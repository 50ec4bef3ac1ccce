"""How fast networks run beside other engines: same graph, weights and input, answers compared before anything is timed.

The engines take turns. Each turn begins when no thread of this process works any more (the pools of most engines spin
for a while after a call), calls once without the clock, then as often as fits into the turn. The order rotates and
turns round from round to round, so that no engine always follows the same one.
"""

from __future__ import annotations

import gc
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from netdsl import weights as stored
from netdsl.compiler import compile
from netdsl.errors import NetWarning
from netdsl.graph.build import build
from netdsl.graph.ir import Graph
from netdsl.ops.base import Array
from netdsl.peers import ROUNDED_TOLERANCE, TOLERANCE, Call, Peer, Task, Unable, difference
from netdsl.tensor import Shape

WARM_UP = 3  # chosen: calls before the first round
QUIET_SECONDS = 0.025  # chosen: how long all threads must have slept before a turn; several ticks of any system
PATIENCE_SECONDS = 1.0  # chosen: how long to wait for that at most

Report = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Rules:
    """How engines are timed.

    threads    None for all processors
    seconds    of a turn at least (or one call)
    precision  of netdsl; peers run in float32
    """

    threads: int | None = None
    rounds: int = 30
    seconds: float = 0.01
    seed: int = 0
    precision: str = "float32"


@dataclass(frozen=True)
class Outcome:
    """One engine on one network: the median, 10th and 90th percentile of its turns in seconds a call.

    difference  from netdsl's answer, relative to the largest value
    reason      why it was not timed, else None
    """

    engine: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    reason: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether its answer is not netdsl's."""
        return self.difference is not None and self.reason is not None


@dataclass(frozen=True)
class Comparison:
    """All engines on one network and batch; the first outcome is netdsl's.

    inputs     shapes without the batch
    precision  of netdsl
    """

    network: str
    inputs: tuple[Shape, ...]
    batch: int
    device: str
    threads: int
    macs: int
    outcomes: tuple[Outcome, ...]
    precision: str = "float32"

    @property
    def own(self) -> Outcome:
        return self.outcomes[0]

    @property
    def precisions(self) -> str:
        """Of netdsl and the peers, in words."""
        return "float32" if self.precision == "float32" else f"netdsl in {self.precision}, the others in float32"

    @property
    def ratios(self) -> dict[str, float]:
        """For each peer that was timed, its median / netdsl's: how many times faster netdsl is."""
        own = self.own.median
        return {} if not own else {o.engine: o.median / own for o in self.outcomes[1:] if o.median}

    @property
    def best(self) -> tuple[str, float] | None:
        """The fastest peer, and how many times faster netdsl is."""
        return min(self.ratios.items(), key=lambda pair: pair[1], default=None)

    def as_dict(self) -> dict[str, Any]:
        best, ratio = self.best or (None, None)
        return asdict(self) | {"best_peer": best, "ratio": ratio}

    @staticmethod
    def from_dict(record: Mapping[str, Any]) -> Comparison:
        outcomes = tuple(Outcome(**o) for o in record["outcomes"])
        inputs = tuple(tuple(shape) for shape in record["inputs"])
        own = {k: record[k] for k in ("network", "batch", "device", "threads", "macs")}
        return Comparison(**own, inputs=inputs, outcomes=outcomes, precision=record.get("precision", "float32"))


def benchmark(
    sources: Sequence[str | Path], peers: Sequence[Peer], batches: Sequence[int] = (1,), device: str = "cpu",
    rules: Rules | None = None, params: Mapping[str, Any] | None = None, report: Report | None = None,
) -> Iterator[Comparison]:  # fmt: skip
    """Compare netdsl with peers on each network and batch, one after another; weights are random, inputs noise.

    Errors: those of `netdsl.compile`. A peer that fails is reported in its outcome.
    """
    rules = rules or Rules()
    for i, source in enumerate(sources):
        graph = build(source, params=params)
        weights = stored.random_weights(graph, rules.seed)
        for j, batch in enumerate(batches):
            if report:
                report(f"{graph.name}, batch {batch}", i * len(batches) + j, len(sources) * len(batches))
            yield compare(graph, weights, batch, peers, device, rules)
            gc.collect()


def compare(
    graph: Graph, weights: Mapping[str, Array], batch: int, peers: Sequence[Peer], device: str = "cpu",
    rules: Rules | None = None,
) -> Comparison:  # fmt: skip
    """netdsl and peers on one network: first their answers, then their times.

    A peer whose answer differs by more than TOLERANCE (ROUNDED_TOLERANCE where netdsl runs in less than float32) is not
    timed. If there are peers with answers and none agrees with netdsl, nothing is timed at all.
    """
    rules = rules or Rules()
    inputs = noise(graph, batch, rules.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NetWarning)
        model = compile(graph, weights, device, rules.threads, precision=rules.precision)
    calls: dict[str, Call] = {"netdsl": lambda: listed(model(*inputs))}
    expected = calls["netdsl"]()
    tolerance = TOLERANCE if model.precision == "float32" else ROUNDED_TOLERANCE
    task = Task(graph, weights, model.threads, inputs, expected, tolerance)
    found: dict[str, Outcome] = {}
    for peer in peers:
        call, found[peer.name] = _prepared(peer, task)
        if call is not None:
            calls[peer.name] = call
    del task
    own = Outcome("netdsl")
    if len(calls) == 1 and any(o.difference is not None for o in found.values()):
        own = Outcome("netdsl", reason="no engine agrees with its answer: not timed")
    else:
        times = interleave(calls, rules.rounds, rules.seconds)
        own = _timed(own, times["netdsl"])
        found = {name: _timed(o, times[name]) if name in times else o for name, o in found.items()}
    shapes, outcomes = tuple(spec.type.shape for spec in graph.inputs), (own, *found.values())
    return Comparison(graph.name, shapes, batch, model.device, model.threads, graph.macs, outcomes, model.precision)


def noise(graph: Graph, batch: int, seed: int = 0) -> list[Array]:
    """Seeded standard-normal inputs, float32 [batch, *shape]."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((batch, *spec.type.shape), np.float32) for spec in graph.inputs]


def listed(result: Any) -> list[Array]:
    """The outputs of a call of a model, in their order."""
    return list(result.values()) if isinstance(result, dict) else [result]


def _prepared(peer: Peer, task: Task) -> tuple[Call | None, Outcome]:
    """A peer ready to be timed, or the reason why it will not be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own making: of no use to who compares
            call = peer.prepare(task)
            answers = [np.array(y) for y in call()]
    except Unable as error:
        return None, Outcome(peer.name, reason=str(error))
    except Exception as error:  # of whatever class that engine raises
        said = " ".join(str(error).split())[:200]
        return None, Outcome(peer.name, reason=f"{type(error).__name__}: {said}")
    far = difference(answers, task.expected)
    if far > task.tolerance:
        return None, Outcome(peer.name, difference=far, reason=f"its answer differs by {far:.1e} of the largest value")
    return call, Outcome(peer.name, difference=far)


def interleave(calls: Mapping[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a call in each round, by engine."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for i in range(rounds):
        turned = order[i % len(order) :] + order[: i % len(order)]
        for name in turned if i % 2 == 0 else reversed(turned):
            wait_until_quiet()
            times[name].append(_turn(calls[name], seconds))
    return times


def wait_until_quiet() -> None:
    """Return when the threads of this process have stopped spinning, or after PATIENCE_SECONDS.

    A system counts the time of a thread that runs elsewhere only at its ticks, so the wait spans several of them.
    """
    end = time.perf_counter() + PATIENCE_SECONDS
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(QUIET_SECONDS)
        if time.process_time() - before < QUIET_SECONDS / 10:
            return


def _turn(call: Call, seconds: float) -> float:
    call()  # wakes its threads
    count, clock = 0, time.perf_counter
    started = now = clock()
    while count == 0 or now - started < seconds:
        call()
        count, now = count + 1, clock()
    return (now - started) / count


def _timed(outcome: Outcome, times: Sequence[float]) -> Outcome:
    low, median, high = (float(q) for q in np.percentile(times, (10, 50, 90)))
    return Outcome(outcome.engine, median, low, high, outcome.difference)


def geometric_means(comparisons: Iterable[Comparison]) -> dict[int, float]:
    """By batch, the geometric mean of the ratios to the best peer."""
    logs: dict[int, list[float]] = {}
    for comparison in comparisons:
        if comparison.best:
            logs.setdefault(comparison.batch, []).append(math.log(comparison.best[1]))
    return {batch: math.exp(sum(values) / len(values)) for batch, values in sorted(logs.items())}


def facts(peers: Sequence[Peer] = ()) -> dict[str, Any]:
    """What a measurement was made on: processor, system, versions, settings of the peers, the date."""
    from netdsl.backends.cpu.target import host
    from netdsl.backends.cpu.threads import available_threads
    from netdsl.peers import version

    packages = ("netdsl", "numba", "llvmlite", "numpy")
    return {
        "processor": processor(), "processors": available_threads(), "target": host().name, "lanes": host().width,
        "system": platform.platform(), "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages} | {p.name: version(p) for p in peers},
        "settings": {p.name: p.settings for p in peers},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip


def processor() -> str:
    """The processor's name as its maker gives it, where the system tells."""
    with_names = Path("/proc/cpuinfo")
    if with_names.exists():
        for line in with_names.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def headings(peers: Sequence[str]) -> tuple[str, ...]:
    """Columns of a table of comparisons; times in milliseconds."""
    return ("network", "batch", "netdsl ms", *(f"{name} ms" for name in peers), "best peer", "ratio")


def cells(comparison: Comparison, peers: Sequence[str]) -> tuple[str, ...]:
    """A comparison as the texts under `headings`."""
    found = {o.engine: o for o in comparison.outcomes}
    times = [_milliseconds(found.get(name)) for name in ("netdsl", *peers)]
    best, ratio = comparison.best or ("", None)
    return comparison.network, str(comparison.batch), *times, best, "" if ratio is None else f"{ratio:.2f}"


def _milliseconds(outcome: Outcome | None) -> str:
    if outcome is None or outcome.median is None:
        return "-"
    return f"{outcome.median * 1e3:.3g}" if outcome.median < 1 else f"{outcome.median * 1e3:.0f}"


def remarks(comparisons: Iterable[Comparison]) -> list[str]:
    """Why engines were not timed, each a line."""
    return [
        f"{c.network}, batch {c.batch}: {o.engine}: {o.reason}" for c in comparisons for o in c.outcomes if o.reason
    ]
