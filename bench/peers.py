"""netdsl beside other engines on every network: outputs compared, then interleaved rounds.

    python bench/peers.py [--networks GROUP | a,b,…] [--batch 1,8] [--threads 2] [--peers …] [--rounds 30]

A group is headline, families (the other VGGs and ResNets) or others.
Each network runs in a process of its own (`netdsl bench NET --json`), so that memory is given back and an engine that
takes its process down costs no other its figures. Within the process the engines take turns, each with its own fast
settings, its spinning threads included; a turn begins when no thread of the process works any more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netdsl.benchmark import Comparison, Outcome, cells, facts, geometric_means, headings, remarks
from netdsl.cli.console import print_table
from netdsl.peers import choose, installed
from records import Record, numbers, write
from workloads import MEAN_TARGETS, Workload, chosen, workload

_SECONDS = 7200  # chosen: a process is stopped after so long


def measured(work: Workload, batches: Sequence[int], peers: Sequence[str], threads: int, rounds: int) -> list[Record]:
    """The comparisons of one network. A peer that takes the process down is left out, with the status as its reason."""
    found, status = _run(work, batches, peers, threads, rounds)
    if found is not None:
        return found
    ended = {peer: _run(work, batches, [peer], threads, 1) for peer in peers}
    fatal = {peer: status for peer, (result, status) in ended.items() if result is None}
    rest = [peer for peer in peers if peer not in fatal]
    found, status = _run(work, batches, rest, threads, rounds)
    if found is None:
        sys.exit(f"{work.network}: netdsl bench ended with status {status}")
    lost = [vars(Outcome(peer, reason=f"its process ended with status {status}")) for peer, status in fatal.items()]
    return [record | {"outcomes": record["outcomes"] + lost} for record in found]


def _run(
    work: Workload, batches: Sequence[int], peers: Sequence[str], threads: int, rounds: int
) -> tuple[list[Record] | None, int]:  # fmt: skip
    """What `netdsl bench` prints for one network, or None, and its exit status."""
    command = [sys.executable, "-m", "netdsl", "bench", work.network, "--json", "--threads", str(threads),
               "--batch", ",".join(map(str, batches)), "--rounds", str(rounds), "--peers", ",".join(peers)]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=_SECONDS)
    try:
        results = json.loads(done.stdout)["results"]
    except ValueError:
        return None, done.returncode
    return [record | {"network": work.network} for record in results], done.returncode


def verdicts(comparisons: Sequence[Comparison]) -> list[Record]:
    """For each batch size, the geometric mean over those headline networks that were measured, and its target."""
    headline = {w.network for w in chosen("headline")}
    counted = [c for c in comparisons if c.network in headline and c.best]
    return [
        {"batch": batch, "networks": sum(c.batch == batch for c in counted), "mean": mean,
         "target": MEAN_TARGETS.get(batch)}
        for batch, mean in geometric_means(counted).items()
    ]  # fmt: skip


def target(comparison: Comparison) -> float | None:
    """The least ratio that is aimed at, where one is."""
    return workload(comparison.network).targets.get(comparison.batch)


def table(comparisons: Sequence[Comparison], peers: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows under `headings(peers)` and "target"."""
    aims = map(target, comparisons)
    return [(*cells(c, peers), f"{aim:g}" if aim else "") for c, aim in zip(comparisons, aims, strict=True)]


def short(comparisons: Sequence[Comparison]) -> list[str]:
    """In words, where the ratio, as a table shows it, is less than its target."""
    found = [(c, round(c.best[1], 2), target(c) or 0.0) for c in comparisons if c.best]
    return [f"{c.network}, batch {c.batch}: {ratio:.2f} for {aim:g}" for c, ratio, aim in found if ratio < aim]


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", help="comma-separated, or headline, families or others (default: all)")
    parser.add_argument("--batch", help="comma-separated (default: as the list of workloads says)")
    parser.add_argument("--peers", help="comma-separated (default: those installed)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    engines = installed() if given.peers is None else choose(given.peers.split(","))
    names = [peer.name for peer in engines]
    settings: dict[str, Any] = {"threads": given.threads, "rounds": given.rounds}
    results: list[Record] = []
    works = chosen(given.networks)
    if not works:
        parser.error("no networks to measure")
    for i, work in enumerate(works):
        print(f"{i + 1}/{len(works)} {work.network}", file=sys.stderr, flush=True)
        batches = numbers(given.batch) if given.batch else work.batches
        results += measured(work, batches, names, given.threads, given.rounds)
        comparisons = [Comparison.from_dict(record) for record in results]
        means = verdicts(comparisons)  # written after each network, as all of them take hours
        record = write(given.out, facts(engines), results, **settings, means=means)
    columns = (*headings(names), "target")
    print_table(columns, table(comparisons, names), [*range(1, 3 + len(names)), len(columns) - 2, len(columns) - 1])
    for mean in means:
        print("batch {batch}: geometric mean of {networks} networks {mean:.2f}, target {target}".format(**mean))
    for remark in remarks(comparisons):
        print(remark)
    return record


if __name__ == "__main__":
    main()
