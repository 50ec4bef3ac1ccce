"""What each rewrite of linear layers gains: small networks, with the rewrite and without it.

    python bench/algebra.py [--cases "RepVGG;dense"] [--batch 1] [--threads N] [--rounds 30]

Both answers are compared with the definition in float64 first. The two take turns; the ratio is the median over all
rounds of the time without / the time with, so above 1 the rewrite wins.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import netdsl
from netdsl import passes
from netdsl.backends import reference
from netdsl.benchmark import facts, interleave, noise
from netdsl.cli.console import print_table
from netdsl.errors import NetWarning
from netdsl.graph.ir import Graph
from netdsl.passes.rewrite import Pass
from netdsl.peers import TOLERANCE, difference
from netdsl.weights import random_weights
from records import Record, write


@dataclass(frozen=True)
class Case:
    """A network that one rewrite changes: its input as C x H x W and its layers."""

    name: str
    rewrite: Pass
    size: str
    body: str

    @property
    def graph(self) -> Graph:
        return netdsl.build(f"netdsl 1\nnet sample {{\n  input image {self.size}\n{self.body}\n}}\n")


REPVGG = """\
repeat 4 {
  branches add {
    { conv 64 3x3 pad=1 bias=no | batchnorm }
    { 1x1 64 bias=no | batchnorm }
    batchnorm
  }
  relu
}"""

CASES = (
    Case("3x3, then 1x1", passes.merge_chains, "64x56x56", "relu | conv 128 3x3 pad=1 | 1x1 64 | relu"),
    Case("1x1, then 3x3", passes.merge_chains, "32x56x56", "relu | 1x1 128 bias=no | conv 64 3x3 pad=1 | relu"),
    Case("5x5, then every second", passes.merge_chains, "64x56x56", "relu | conv 64 5x5 pad=2 | 1x1 64 stride=2"),
    Case("5x1, then 1x5, of one plane", passes.merge_chains, "1x128x128", "conv 16 5x1 | conv 16 1x5 | relu"),
    Case("dense, then dense", passes.merge_chains, "512x1x1", "flatten | dense 4096 | dense 512 | relu"),
    Case("RepVGG", passes.sum_branches, "64x56x56", REPVGG),
    Case("3x3 and 1x1, added", passes.sum_branches, "64x56x56",
         "relu | branches add { conv 64 3x3 pad=1\n 1x1 64 }\nrelu"),
    Case("a head of two", passes.merge_siblings, "256x28x28",
         "relu | branches concat { conv 24 3x3 pad=1\n conv 36 3x3 pad=1 }"),
    Case("four narrow branches", passes.merge_siblings, "64x56x56",
         "relu | branches concat { { 1x1 8 | relu }\n { 1x1 8 | relu }\n { 1x1 8 | relu }\n { 1x1 8 | relu } }"),
    Case("GoogLeNet's reductions, joined", passes.merge_siblings, "192x28x28",
         "relu | branches concat { { 1x1 96 | relu }\n { 1x1 16 | relu } }"),
    Case("batch norm, then 1x1", passes.fold_forward, "64x112x112", "maxpool 2x2 | batchnorm | 1x1 64 | relu"),
    Case("batch norm, then scale", passes.fold_forward, "64x112x112", "maxpool 2x2 | batchnorm | scale | relu"),
)  # fmt: skip


@contextmanager
def without(rewrite: Pass) -> Iterator[None]:
    """Networks that are compiled within go through every pass but this one."""
    lists = {name: tuple(p for p in getattr(passes, name) if p is not rewrite) for name in ("PASSES", "LINEAR")}
    with mock.patch.multiple(passes, **lists):
        yield


def measure(case: Case, batch: int, threads: int | None, rounds: int) -> Record:
    """Multiply-accumulates, layers and seconds a call, without the rewrite and with it."""
    graph = case.graph
    weights, inputs = random_weights(graph, 0), noise(graph, batch)
    with without(case.rewrite):
        plain, model_without = passes.rewrite(graph), netdsl.compile(graph, weights, "cpu", threads)
    rewritten, model_with = passes.rewrite(graph), netdsl.compile(graph, weights, "cpu", threads)
    calls = {"without": lambda: [model_without(*inputs)], "with": lambda: [model_with(*inputs)]}
    expected = reference.run(graph, weights, inputs)
    wrong = {which: difference(call(), expected) for which, call in calls.items()}
    if max(wrong.values()) > TOLERANCE:
        sys.exit(f"{case.name} is wrong by {max(wrong.values()):.1e} of the largest value; nothing is reported")
    times = interleave(calls, rounds, 0.005)
    ratios = [a / b for a, b in zip(times["without"], times["with"], strict=True)]
    return {
        "case": case.name, "rewrite": case.rewrite.__name__, "input": case.size, "network": case.body, "batch": batch,
        "threads": model_with.threads, "macs_without": plain.macs, "macs_with": rewritten.macs,
        "nodes_without": len(plain.nodes), "nodes_with": len(rewritten.nodes), "error": wrong["with"],
        "seconds_without": statistics.median(times["without"]), "seconds_with": statistics.median(times["with"]),
        "ratio": statistics.median(ratios),
    }  # fmt: skip


COLUMNS = ("network", "rewrite", "M MACs, without", "with", "us, without", "with", "ratio")


def cells(r: Record) -> tuple[str, ...]:
    macs = (f"{r[key] / 1e6:.1f}" for key in ("macs_without", "macs_with"))
    times = (f"{r[key] * 1e6:.0f}" for key in ("seconds_without", "seconds_with"))
    return r["case"], r["rewrite"], *macs, *times, f"{r['ratio']:.2f}"


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", help="some of them, each by a part of its name, separated by semicolons")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    parts = given.cases.split(";") if given.cases else [""]
    chosen = [case for case in CASES if any(part in case.name for part in parts)]
    if not chosen:
        parser.error(f"no case has {given.cases} in its name; there are {'; '.join(c.name for c in CASES)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NetWarning)
        results = [measure(case, given.batch, given.threads, given.rounds) for case in chosen]
    print_table(COLUMNS, [cells(r) for r in results], range(2, 7))
    return write(given.out, facts(), results, rounds=given.rounds)


if __name__ == "__main__":
    main()
