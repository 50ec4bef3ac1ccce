"""What weights in 16 bits gain: netdsl in bfloat16 and float16 beside netdsl and other engines in float32.

    python bench/half.py [--networks alexnet,vgg16_bn] [--batch 1,8] [--threads 2] [--peers onnxruntime] [--rounds 15]

All take turns in one process. Each precision's answer is compared with that of float32 first. The dense layers are
also timed by themselves, as `netdsl profile` does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import netdsl
from netdsl.backends.cpu.machine import bandwidth
from netdsl.backends.cpu.target import host
from netdsl.benchmark import facts, interleave, noise
from netdsl.cli.console import print_table
from netdsl.graph.build import build
from netdsl.peers import ROUNDED_TOLERANCE, TOLERANCE, Peer, Task, choose, difference
from netdsl.weights import random_weights
from records import Record, numbers, write

SECONDS = 0.01  # chosen: of a turn at least
COLUMNS = ("network", "batch", "engine", "ms", "times float32", "dense ms", "times float32", "difference", "same class")
PRECISIONS = ("float32", "bfloat16", *(["float16"] if host().widens_float16 else []))


def measure(network: str, batch: int, threads: int, peers: Sequence[Peer], rounds: int) -> list[Record]:
    """One record for each precision, then one for each peer; seconds are medians of the turns."""
    graph = build(network)
    weights, inputs = random_weights(graph), noise(graph, batch)
    models = {p: netdsl.compile(graph, weights, "cpu", threads, precision=p) for p in PRECISIONS}
    answers = {p: _listed(model(*inputs)) for p, model in models.items()}
    calls: dict[str, Callable[[], Any]] = {p: _call(model, inputs) for p, model in models.items()}
    task = Task(graph, weights, threads, inputs, answers["float32"])
    for peer in peers:
        calls[peer.name] = peer.prepare(task)
        answers[peer.name] = calls[peer.name]()
    far = {name: difference(found, answers["float32"]) for name, found in answers.items()}
    for name, most in far.items():
        if most > (ROUNDED_TOLERANCE if name in PRECISIONS else TOLERANCE):
            sys.exit(f"{network}: {name} is wrong by {most:.1e} of the largest value; nothing is reported")
    times = {name: float(np.median(found)) for name, found in interleave(calls, rounds, SECONDS).items()}
    dense = {p: sum(s.seconds for s in model.profile(*inputs, rounds=rounds) if s.op == "dense" and s.macs)
             for p, model in models.items()}  # fmt: skip
    top = answers["float32"][0].argmax(1)
    return [
        {"network": network, "batch": batch, "engine": "netdsl" if name in models else name,
         "precision": name if name in models else "float32", "seconds": seconds,
         "ratio": times["float32"] / seconds, "dense_seconds": dense.get(name),
         "dense_ratio": dense["float32"] / dense[name] if name in dense else None, "difference": far[name],
         "same_class": float(np.mean(answers[name][0].argmax(1) == top)),
         "weights": str(models[name].storage) if name in models and name != "float32" else None}
        for name, seconds in times.items()
    ]  # fmt: skip


def _call(model: netdsl.Model, inputs: list[Any]) -> Callable[[], Any]:
    return lambda: model(*inputs)


def _listed(result: Any) -> list[Any]:
    return list(result.values()) if isinstance(result, dict) else [result]


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="alexnet,vgg16_bn", help="comma-separated")
    parser.add_argument("--batch", default="1,8", help="comma-separated")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", default="onnxruntime", help="comma-separated; empty for none")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    peers = choose(given.peers.split(",")) if given.peers else ()
    results: list[Record] = []
    for network in given.networks.split(","):
        for batch in numbers(given.batch):
            results += measure(network, batch, given.threads, peers, given.rounds)
    print_table(COLUMNS, [cells(r) for r in results], range(3, 9))
    rate = bandwidth(given.threads)
    return write(given.out, facts(peers), results, threads=given.threads, rounds=given.rounds, bandwidth=rate)


def cells(r: Record) -> tuple[str, ...]:
    engine = r["engine"] + ("" if r["precision"] == "float32" else f", {r['precision']}")
    dense = ("", "") if r["dense_seconds"] is None else (f"{r['dense_seconds'] * 1e3:.3g}", f"{r['dense_ratio']:.2f}")
    times = (f"{r['seconds'] * 1e3:.3g}", f"{r['ratio']:.2f}", *dense)
    return r["network"], str(r["batch"]), engine, *times, f"{r['difference']:.0e}", f"{r['same_class']:.0%}"


if __name__ == "__main__":
    main()
