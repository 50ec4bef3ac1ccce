"""Whole processes: how long until one image is answered, for the first time ever, and after that.

    python bench/startup.py [--network resnet18] [--threads 2] [--runs 7]

`netdsl run NET --weights FILE --json` with an empty kernel cache, the same again, `import netdsl`, an empty Python, and
ONNX Runtime on the same network. Weights are random but come from a file, as trained ones do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from engines import SCRIPT
from netdsl.benchmark import facts
from netdsl.cli.console import print_table
from netdsl.graph.build import build
from netdsl.onnx_export import to_onnx
from netdsl.peers import choose
from netdsl.weights import random_weights
from records import Record, checked, write

FIRST_RUNS = 3  # chosen: runs with an empty cache, which take seconds each


def write_models(network: str, folder: Path) -> tuple[Path, Path]:
    """The network's random weights as a .safetensors file, and the network with them as an .onnx file."""
    from safetensors.numpy import save_file

    graph = build(network)
    weights = random_weights(graph)
    stored, model = folder / "weights.safetensors", folder / "model.onnx"
    save_file(weights, stored)
    model.write_bytes(to_onnx(graph, weights))
    return stored, model


def seconds(command: Sequence[object], cache: Path) -> float:
    """How long a command takes as a whole process, with its kernel cache in a folder."""
    environment = os.environ | {"NETDSL_CACHE": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their bytecode
    started = time.perf_counter()
    checked(command, environment)
    return time.perf_counter() - started


def measure(network: str, threads: int, runs: int) -> list[Record]:
    """Seconds of each kind of process: all runs, and their median."""
    with TemporaryDirectory(prefix="netdsl-") as name:
        folder = Path(name)
        weights, model = write_models(network, folder)
        python = sys.executable
        run = [python, "-m", "netdsl", "run", network, "--weights", weights, "--threads", threads, "--json"]
        others = {
            "netdsl run, later": run,
            "ONNX Runtime": [python, SCRIPT, "onnxruntime", model, threads],
            "import netdsl": [python, "-c", "import netdsl"],
            "Python alone": [python, "-c", "pass"],
        }
        times = {"netdsl run, first ever": [seconds(run, folder / f"empty{i}") for i in range(min(runs, FIRST_RUNS))]}
        times |= {what: [] for what in others}
        for i in range(runs + 1):  # in turns; the first round warms the file cache and does not count
            for what, command in others.items():
                took = seconds(command, folder / "empty0")
                if i:
                    times[what].append(took)
    return [{"what": what, "seconds": statistics.median(t), "runs": t} for what, t in times.items()]


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    results = measure(given.network, given.threads, given.runs)
    print_table(("process", "seconds"), [(r["what"], f"{r['seconds']:.3f}") for r in results], [1])
    machine = facts(choose(["onnxruntime"]))
    return write(given.out, machine, results, network=given.network, threads=given.threads)


if __name__ == "__main__":
    main()
