"""Constants that were chosen by measuring, each beside other values of it.

    python bench/choices.py [--constants SPAN_BYTES,AHEAD,…] [--networks a,b,…] [--rounds 15] [--threads 2]

For each network and each value of a constant, the network is planned and bound with that value, and its answer compared
with the one that the committed value gives; then all take turns. The ratio is the median over the rounds of the time
with the other value divided by the time with the committed one: above 1 the committed value is the faster. Where
another value changes no decision, nothing is timed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from netdsl.backends.cpu import lower_linear, lower_winograd, planner, program, streams, tiles, turns, views, winograd
from netdsl.backends.cpu.program import Plan, Program
from netdsl.benchmark import facts, interleave, noise
from netdsl.cli.console import print_table
from netdsl.graph.build import build
from netdsl.peers import TOLERANCE, difference
from netdsl.weights import random_weights
from records import Record, write

TURN_SECONDS = 0.1  # chosen: how long one turn lasts at least


@dataclass(frozen=True)
class Choice:
    """A constant of a module, other values that it might have, and networks and a batch size for which it matters."""

    module: ModuleType
    name: str
    others: tuple[Any, ...]
    networks: tuple[str, ...]
    images: int = 1

    @property
    def committed(self) -> Any:
        return getattr(self.module, self.name)


def _scaled(values: dict[int, float], factor: float) -> dict[int, float]:
    return {m: factor * value for m, value in values.items()}


CHOICES = (
    Choice(lower_linear, "SPAN_BYTES", (0, 8192, 16384, 32768), ("resnet18", "resnet50", "googlenet")),
    Choice(lower_linear, "WHOLE_BYTES", (0, 1 << 14, 3 << 14), ("resnet18", "resnet50", "googlenet")),
    Choice(lower_winograd, "PANEL_BYTES", (3 << 13, 3 << 14, 1 << 16), ("resnet18", "resnet50", "vgg16_bn")),
    Choice(lower_linear, "AHEAD", (0, 2048, 8192), ("alexnet", "resnet18", "resnet50")),
    Choice(winograd, "BYTES_PER_FMA", (1.5, 4.0), ("resnet18", "alexnet", "squeezenet1_1")),
    Choice(
        winograd,
        "TRANSFORM",
        (_scaled(winograd.TRANSFORM, 0.7), _scaled(winograd.TRANSFORM, 1.5)),
        ("resnet18", "alexnet", "squeezenet1_1"),
    ),
    Choice(winograd, "HIDE", (1, 2, 20), ("resnet50", "resnet18", "squeezenet1_1"), 8),
    Choice(tiles, "LOADS", (0.1, 0.2, 0.5), ("xception", "squeezenet1_1", "mobilenet_v1")),
    Choice(tiles, "BAND_BYTES", (1 << 19, 1 << 21), ("mobilenet_v2", "resnet50"), 8),
    Choice(program, "WORK_TO_SHARE", (0, 30_000_000), ("kws_dscnn", "lenet5", "resnet20_cifar10")),
    Choice(program, "WORK_PER_THREAD", (1, 400_000), ("kws_dscnn", "mobilenet_v2")),
    Choice(streams, "STREAM_BYTES", (1 << 20, 6 << 20, 1 << 40), ("mobilenet_v2", "efficientnet_lite0", "xception")),
    Choice(streams, "STREAM_BYTES", (1 << 20, 1 << 40), ("mobilenet_v2",), 8),
    Choice(planner, "LASTING_BYTES", (0, 2 << 20, 8 << 20), ("mobilenet_v2", "resnet50"), 8),
    Choice(views, "PLANE_LINES", ((1, 0), (16, 0), (16, 5)), ("resnet50", "vgg16_bn"), 8),
    Choice(turns, "TURN_BYTES", (0, 1 << 20, 4 << 20, 1 << 40), ("mobilenet_v2", "squeezenet1_1", "resnet50"), 8),
)


def bound(network: str, choice: Choice, value: Any, threads: int) -> Program:
    """A network bound and planned with a constant at some value."""
    graph = build(network)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(choice.module, choice.name, value))
        stack.callback(_forget)
        _forget()
        made = Program(graph, random_weights(graph), threads)
        made.prepare(choice.images)
        return made


def _forget() -> None:
    """What was decided with another value."""
    for kept in (tiles.tile_for, tiles._shapes, winograd.winograd_cut):
        kept.cache_clear()


def decisions(plan: Plan) -> list[Any]:
    """All that a plan decides, without the arrays that it holds."""
    sizes = [{k: v for k, v in s.arguments.items() if isinstance(v, int)} for s in plan.steps]
    return [[s.kernel for s in plan.steps], sizes, plan.order, plan.shares, plan.parts, plan.fences, plan.offsets]


def measure(choice: Choice, network: str, threads: int, rounds: int) -> list[Record]:
    """A row for each other value of a constant on one network."""
    committed, inputs = bound(network, choice, choice.committed, threads), noise(build(network), choice.images)
    expected = committed(inputs)
    rows, programs = [], {"committed": committed}
    for value in choice.others:
        other = bound(network, choice, value, threads)
        same = decisions(other.plan(choice.images)) == decisions(committed.plan(choice.images))
        rows.append({
            "constant": f"{choice.module.__name__.rpartition('.')[2]}.{choice.name}", "network": network,
            "batch": choice.images, "committed": str(choice.committed), "other": str(value), "same_plan": same,
            "ratio": None,
        })  # fmt: skip
        if not same:
            error = max(difference(found, y) for found, y in zip(other(inputs), expected, strict=True))
            assert error <= TOLERANCE, f"{network} with {choice.name} = {value} is off by {error:.1e}"
            programs[str(value)] = other
    if len(programs) > 1:
        calls = {name: lambda bound=p: bound(inputs) for name, p in programs.items()}
        times = interleave(calls, rounds, TURN_SECONDS)
        for row in rows:
            if not row["same_plan"]:
                row |= _compared(times["committed"], times[row["other"]])
    return rows


def _compared(committed: Sequence[float], other: Sequence[float]) -> Record:
    """Medians in seconds, the median ratio over the rounds, and the ratios that bound the middle half of them."""
    ratios = [b / a for a, b in zip(committed, other, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"seconds": statistics.median(committed), "seconds_other": statistics.median(other),
            "ratio": statistics.median(ratios), "quartiles": [low, high]}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constants", help="comma-separated names (default: all)")
    parser.add_argument("--networks", help="comma-separated, in place of those that a constant matters for")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    names = given.constants.split(",") if given.constants else [choice.name for choice in CHOICES]
    if unknown := set(names) - {choice.name for choice in CHOICES}:
        parser.error(f"there is no constant {', '.join(sorted(unknown))}")
    if given.rounds < 2:
        parser.error("two rounds at least")
    results: list[Record] = []
    for choice in CHOICES:
        if choice.name in names:
            for network in given.networks.split(",") if given.networks else choice.networks:
                results += measure(choice, network, given.threads, given.rounds)
    print_table(("constant", "network", "batch", "committed", "other", "ms", "ms, other", "ratio", "middle half"),
                [cells(r) for r in results], range(5, 9))  # fmt: skip
    return write(given.out, facts(), results, threads=given.threads, rounds=given.rounds)


def cells(r: Record) -> tuple[str, ...]:
    what = r["constant"], r["network"], str(r["batch"]), r["committed"], r["other"]
    if r["same_plan"]:
        return *what, "", "", "same plan", ""
    low, high = r["quartiles"]
    times = (f"{r[key] * 1e3:.3g}" for key in ("seconds", "seconds_other"))
    return *what, *times, f"{r['ratio']:.3f}", f"{low:.3f} to {high:.3f}"


if __name__ == "__main__":
    main()
