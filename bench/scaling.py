"""How much more threads and callers give.

    python bench/scaling.py [--networks vgg16_bn,…] [--callers 8] [--rounds 20] [--seconds 3]

Threads: the time of one call with one thread / with all processors. Beside it what the machine gives: its peak
(multiply-adds in registers) on all processors / on one. All four take turns in one process, and both ratios are medians
of the rounds' own, as a shared machine changes its speed, and what its processors share, by the minute.

Callers: images a second of so many Python threads that call one model at once / of one caller, in turns too, each for
some seconds in all.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import netdsl
from netdsl.backends.cpu.machine import peak_meter
from netdsl.backends.cpu.threads import available_threads
from netdsl.benchmark import facts, interleave, noise
from netdsl.cli.console import print_table
from netdsl.model import Model
from netdsl.ops.base import Array
from netdsl.weights import random_weights
from records import Record, write
from workloads import chosen

NETWORKS = "vgg16_bn,resnet18,resnet50,mobilenet_v2,lenet5"
CALLER_ROUNDS = 3  # chosen: turns that the seconds of callers are cut into
COLUMNS = ("network", "threads", "ms, one", "ms, all", "speedup", "the machine's",
           "callers", "images/s, one", "all", "ratio")  # fmt: skip


def measure(network: str, callers: int, rounds: int, seconds: float) -> Record:
    """Seconds a call with one thread and with all; images a second of one caller and of many."""
    graph = netdsl.build(network)
    weights, most = random_weights(graph), available_threads()
    inputs = noise(graph, 1)
    one, all_ = netdsl.compile(graph, weights, threads=1), netdsl.compile(graph, weights, threads=most)
    peak_one, peak_all = peak_meter(1), peak_meter(most)
    calls = {"one": lambda: [one(*inputs)], "peak of one": lambda: [peak_one()],
             "all": lambda: [all_(*inputs)], "peak of all": lambda: [peak_all()]}  # fmt: skip
    speeds = of_threads(interleave(calls, rounds, 0.01), most)
    turns = [[throughput(all_, inputs, n, seconds / CALLER_ROUNDS) for n in (1, callers)] for _ in range(CALLER_ROUNDS)]
    return {"network": network, "threads": most, **speeds, "callers": callers, **of_callers(turns)}


def of_threads(times: Mapping[str, Sequence[float]], threads: int) -> Record:
    """What is said of threads, from the seconds of each round: calls, and measurements of the peak.

    To measure the peak of all takes `threads` times the FLOP that one takes.
    """
    return {"seconds_one_thread": statistics.median(times["one"]),
            "seconds_all_threads": statistics.median(times["all"]),
            "speedup": _ratio(times["one"], times["all"]),
            "machine_speedup": threads * _ratio(times["peak of one"], times["peak of all"])}  # fmt: skip


def of_callers(turns: Sequence[Sequence[float]]) -> Record:
    """What is said of callers, from each turn's images a second: of one, of all."""
    alone, together = zip(*turns, strict=True)
    return {"images_per_second_one_caller": statistics.median(alone),
            "images_per_second_all_callers": statistics.median(together),
            "throughput": _ratio(together, alone)}  # fmt: skip


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def throughput(model: Model, inputs: Sequence[Array], callers: int, seconds: float) -> float:
    """Calls a second of so many Python threads together, one of each at least.

    The clock starts when all have made a first call.
    """
    counts = [0] * callers
    start, stop = threading.Barrier(callers + 1, timeout=600), threading.Event()

    def work(i: int) -> None:
        model(*inputs)
        start.wait()
        while not (counts[i] and stop.is_set()):
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
    print_table(COLUMNS, [cells(r) for r in results], range(1, 10))
    return write(given.out, facts(), results, rounds=given.rounds)


def cells(r: Record) -> tuple[str, ...]:
    times = (f"{r[key] * 1e3:.3g}" for key in ("seconds_one_thread", "seconds_all_threads"))
    rates = (f"{r[f'images_per_second_{who}']:.4g}" for who in ("one_caller", "all_callers"))
    network, threads, callers = r["network"], str(r["threads"]), str(r["callers"])
    speedups = (f"{r[key]:.2f}" for key in ("speedup", "machine_speedup"))
    return network, threads, *times, *speedups, callers, *rates, f"{r['throughput']:.2f}"


if __name__ == "__main__":
    main()
