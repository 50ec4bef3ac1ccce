"""Peak resident memory of a process that answers one image: netdsl beside ONNX Runtime.

    python bench/memory.py [--networks headline | a,b,…] [--threads 2]

Both read random weights from a file (netdsl maps it into memory, so pages of it count as resident) and run once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from engines import SCRIPT
from netdsl.benchmark import facts
from netdsl.cli.console import print_table
from netdsl.compiler import stop_after
from netdsl.peers import choose
from records import Record, checked, write
from startup import write_models
from workloads import chosen


def peak(*arguments: object) -> int:
    """Peak resident bytes of an engine's process; of the second, as the first may have had to compile kernels."""
    command = [sys.executable, SCRIPT, *arguments]
    checked(command)
    return int(checked(command).split()[-1])


def measure(network: str, threads: int) -> Record:
    """Bytes: peak of both engines' processes, netdsl's arena, weights."""
    with warnings.catch_warnings(), TemporaryDirectory(prefix="netdsl-") as name:
        warnings.simplefilter("ignore")
        weights, model = write_models(network, Path(name))
        own = peak("netdsl", network, weights, threads)
        other = peak("onnxruntime", model, threads)
        arena = stop_after("plan", network, threads=threads).arena_bytes
        size = weights.stat().st_size
    return {"network": network, "netdsl": own, "onnxruntime": other, "ratio": own / other,
            "arena": arena, "weights": size}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="headline", help="comma-separated, or headline")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    results = [measure(work.network, given.threads) for work in chosen(given.networks)]
    columns = ("network", "netdsl MiB", "ONNX Runtime MiB", "ratio", "arena MiB", "weights MiB")
    print_table(columns, [cells(r) for r in results], range(1, 6))
    return write(given.out, facts(choose(["onnxruntime"])), results, threads=given.threads)


def cells(result: Record) -> tuple[str, ...]:
    own, other, arena, weights = (f"{result[k] / 2**20:.1f}" for k in ("netdsl", "onnxruntime", "arena", "weights"))
    return result["network"], own, other, f"{result['ratio']:.2f}", arena, weights


if __name__ == "__main__":
    main()
