"""How much more threads and callers give.

    python bench/scaling.py [--networks vgg16_bn,…] [--callers 8] [--rounds 20] [--seconds 3]

Threads: the time of one call with one thread / with all processors. Callers: images a second of so many Python threads
that call one model at once / of one caller, each for some seconds.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import netdsl
from netdsl.backends.cpu.threads import available_threads
from netdsl.benchmark import facts, interleave, noise
from netdsl.cli.console import print_table
from netdsl.model import Model
from netdsl.ops.base import Array
from netdsl.weights import random_weights
from records import Record, write
from workloads import chosen

NETWORKS = "vgg16_bn,resnet18,resnet50,mobilenet_v2,lenet5"


def measure(network: str, callers: int, rounds: int, seconds: float) -> Record:
    """Seconds a call with one thread and with all; images a second of one caller and of many."""
    graph = netdsl.build(network)
    weights, most = random_weights(graph), available_threads()
    inputs = noise(graph, 1)
    one, all_ = netdsl.compile(graph, weights, threads=1), netdsl.compile(graph, weights, threads=most)
    times = interleave({"one": lambda: [one(*inputs)], "all": lambda: [all_(*inputs)]}, rounds, 0.01)
    single, many = (statistics.median(times[name]) for name in ("one", "all"))
    alone, together = (throughput(all_, inputs, n, seconds) for n in (1, callers))
    return {"network": network, "threads": most, "seconds_one_thread": single, "seconds_all_threads": many,
            "speedup": single / many, "callers": callers, "images_per_second_one_caller": alone,
            "images_per_second_all_callers": together, "throughput": together / alone}  # fmt: skip


def throughput(model: Model, inputs: Sequence[Array], callers: int, seconds: float) -> float:
    """Calls a second of so many Python threads together. The clock starts when all have made a first call."""
    counts = [0] * callers
    start, stop = threading.Barrier(callers + 1, timeout=600), threading.Event()

    def work(i: int) -> None:
        model(*inputs)
        start.wait()
        while not stop.is_set():
            model(*inputs)
            counts[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(callers)]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS, help="comma-separated, or headline")
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    results = [measure(w.network, given.callers, given.rounds, given.seconds) for w in chosen(given.networks)]
    columns = ("network", "threads", "ms, one", "ms, all", "speedup", "callers", "images/s, one", "all", "ratio")
    print_table(columns, [cells(r) for r in results], range(1, 9))
    return write(given.out, facts(), results, rounds=given.rounds)


def cells(r: Record) -> tuple[str, ...]:
    times = (f"{r[key] * 1e3:.3g}" for key in ("seconds_one_thread", "seconds_all_threads"))
    rates = (f"{r[f'images_per_second_{who}']:.4g}" for who in ("one_caller", "all_callers"))
    network, threads, callers = r["network"], str(r["threads"]), str(r["callers"])
    return network, threads, *times, f"{r['speedup']:.2f}", callers, *rates, f"{r['throughput']:.2f}"


if __name__ == "__main__":
    main()
