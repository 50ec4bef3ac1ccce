"""netdsl on an NVIDIA GPU beside PyTorch with cuDNN: the same graph, weights and inputs, answers compared before times.

    python bench/cuda_peers.py [--networks resnet18,…] [--batch 1,64] [--precision float32,tf32,float16] [--out FILE]

All engines work on inputs that lie on the GPU already, and a call lasts until its answer is complete. netdsl and "torch
graph" replay what they recorded as a CUDA graph; "torch eager" calls layer by layer. PyTorch runs channels last, batch
norms folded, cuDNN choosing its algorithms by trial, tf32 allowed only where that is the precision; in float16 and
bfloat16 maps between layers are of that type in all engines. Weights and maps stay in the GPU's cache from call to call
where they fit, for all engines alike.

The ratio is torch graph's time / netdsl's. Each kernel's part of the card's peak comes from `Model.profile`: of float32
multiply-adds, or of tensor-core products by mma.sync in that precision, both measured on the card.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import netdsl
from netdsl.backends.cuda import device
from netdsl.benchmark import facts, interleave, listed, noise
from netdsl.cli.console import print_table
from netdsl.errors import DeviceError, NetWarning
from netdsl.graph.ir import Graph
from netdsl.model import PRECISIONS, Model
from netdsl.passes.fold_batchnorm import fold_batchnorm
from netdsl.peers import difference
from netdsl.weights import random_weights
from records import Record, numbers, write

NETWORKS = ("resnet18", "resnet50", "vgg16", "mobilenet_v2", "alexnet")
ENGINES = ("netdsl", "torch graph", "torch eager")
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}  # of the largest value
RECORDED_AFTER = 3  # chosen: calls before PyTorch's are recorded, in which cuDNN tries its algorithms
COLUMNS = ("network", "batch", "precision", *(f"{e} ms" for e in ENGINES), "images/s", "ratio", "target", "of peak")

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]


def target(batch: int, precision: str) -> float | None:
    """The least ratio that is aimed at."""
    if batch == 1:
        return 1.0
    return {"float32": 1.0, "tf32": 0.8, "float16": 0.8}.get(precision) if batch == 64 else None


def lacking() -> str | None:
    """Why nothing can be compared here, or None."""
    try:
        device.find()
    except DeviceError as error:
        return f"Nothing was run: {error.message}; {error.hint}."
    if device.simulated():
        return "Nothing was run: a simulator stands in for the GPU."
    if importlib.util.find_spec("torch") is None:
        return "Nothing was run: PyTorch is not installed; pip install torch."
    import torch

    if not torch.cuda.is_available():
        return f"Nothing was run: PyTorch {torch.__version__} has no CUDA; see https://pytorch.org/get-started."
    return None


def own_call(model: Model, inputs: Sequence[Array]) -> Call:
    """netdsl replaying its recorded launches on inputs that lie on the GPU; waits for the answer."""
    program: Any = model._program
    workspace = program.workspace(len(inputs[0]))
    outputs = [np.empty((len(inputs[0]), *shape), np.float32).reshape(-1) for shape in program.shapes]
    workspace.call([x.reshape(-1) for x in inputs], outputs)  # leaves the inputs there
    steps = len(workspace.plan.steps)
    graph = device.runtime().LaunchGraph(workspace.stream, lambda: workspace.queue(0, steps))

    def call() -> None:
        graph.launch(workspace.stream)
        workspace.stream.wait()

    return call


def torch_module(graph: Graph, weights: Mapping[str, Array], place: Callable[[Any], Any]) -> Any:
    """The network in PyTorch, batch norms folded. place: makes of a tensor of the host the one to work with."""
    from netdsl.torch_export import Network

    return Network(fold_batchnorm(graph), weights, place).eval()


def placed(tensor: Any, where: str, precision: str) -> Any:
    """A float32 tensor on a device in the type of a precision, maps and filters channels last."""
    import torch

    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    return tensor.to(where, kind).contiguous(memory_format=layout)


def torch_calls(
    graph: Graph, weights: Mapping[str, Array], inputs: Sequence[Array], precision: str
) -> tuple[dict[str, Call], list[Array]]:
    """PyTorch called layer by layer, and replaying a CUDA graph; and its answer."""
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    module = torch_module(graph, weights, lambda tensor: placed(tensor, "cuda", precision))
    given = [placed(torch.from_numpy(x), "cuda", precision) for x in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(side):
        for _ in range(RECORDED_AFTER):
            module(*given)
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(recorded):
        results = module(*given)

    def replay() -> None:
        recorded.replay()
        torch.cuda.synchronize()

    def eager() -> None:
        with torch.inference_mode():
            module(*given)
        torch.cuda.synchronize()

    replay()
    answers = [y.float().cpu().numpy() for y in results]
    return {"torch graph": replay, "torch eager": eager}, answers


def measured(network: str, batch: int, precision: str, rounds: int, seconds: float) -> Record:
    """Both engines on one network: answers, times, and the part of the peak of each of netdsl's kernels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NetWarning)
        graph = netdsl.build(network)
        weights = random_weights(graph, 0)
        model = netdsl.compile(graph, weights, device="cuda", precision=precision)
    inputs = noise(graph, batch)
    calls, answers = torch_calls(graph, weights, inputs, precision)
    apart = difference(listed(model(*inputs)), answers)
    if apart > TOLERANCE[precision]:
        return result(network, batch, precision, apart)
    times = interleave({"netdsl": own_call(model, inputs), **calls}, rounds, seconds)
    profile = model.profile(*inputs, rounds=rounds).as_dict()
    return result(network, batch, precision, apart, times, profile)


def result(
    network: str, batch: int, precision: str, apart: float, times: Mapping[str, Sequence[float]] | None = None,
    profile: Record | None = None,
) -> Record:  # fmt: skip
    """A record; without times where the answers are too far apart."""
    quantiles = {
        engine: dict(zip(("low", "median", "high"), map(float, np.percentile(found, (10, 50, 90))), strict=True))
        for engine, found in (times or {}).items()
    }
    ratio = quantiles["torch graph"]["median"] / quantiles["netdsl"]["median"] if quantiles else None
    return {
        "network": network, "batch": batch, "precision": precision, "difference": apart, "seconds": quantiles,
        "images_per_second": {engine: batch / q["median"] for engine, q in quantiles.items()}, "ratio": ratio,
        "target": target(batch, precision), "profile": profile,
    }  # fmt: skip


def part_of_peak(profile: Record) -> float:
    """The part of the card's peak that all steps together reach."""
    work, seconds = (sum(step[what] for step in profile["steps"]) for what in ("macs", "seconds"))
    return float(2 * work / seconds / profile["machine"]["flops"])


def cells(record: Record) -> tuple[str, ...]:
    """A record as the texts under COLUMNS."""
    head = record["network"], str(record["batch"]), record["precision"]
    aim = "" if record["target"] is None else f"{record['target']:g}"
    if not record["seconds"]:
        return (*head, *["-"] * (len(ENGINES) + 2), aim, "-")
    times = [f"{record['seconds'][engine]['median'] * 1e3:.4g}" for engine in ENGINES]
    rate, ratio = f"{record['images_per_second']['netdsl']:.4g}", f"{record['ratio']:.2f}"
    return (*head, *times, rate, ratio, aim, f"{part_of_peak(record['profile']):.0%}")


def remarks(records: Sequence[Record]) -> list[str]:
    """What to say below the table: answers that differ, targets that are missed."""
    lines = []
    for r in records:
        what = f"{r['network']}, batch {r['batch']}, {r['precision']}"
        if not r["seconds"]:
            lines.append(f"{what}: the answers differ by {r['difference']:.1e} of the largest value: not timed")
        elif r["target"] is not None and r["ratio"] < r["target"]:
            lines.append(f"{what}: {r['ratio']:.2f} of PyTorch with CUDA graphs, aimed at {r['target']:g}")
    return lines


def machine() -> Record:
    """The card, its driver, PyTorch and what it brings, beside the facts of every results file."""
    import torch

    libraries = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return facts() | {"gpu": device.facts(), "torch": libraries}


def main(arguments: Sequence[str] | None = None) -> Record:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="comma-separated")
    parser.add_argument("--batch", type=numbers, default=[1, 64], help="comma-separated")
    parser.add_argument("--precision", default="float32,tf32,float16", help=f"of {', '.join(PRECISIONS)}")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.05, help="of a turn of one engine")
    parser.add_argument("--out", type=Path, help="write the results here (default: only print)")
    given = parser.parse_args(arguments)
    precisions = given.precision.split(",")
    if unknown := set(precisions) - set(PRECISIONS):
        parser.error(f"there is no precision {', '.join(sorted(unknown))}; there are {', '.join(PRECISIONS)}")
    if (reason := lacking()) is not None:
        sys.exit(reason)
    results: list[Record] = []
    for network in given.networks.split(","):
        for batch in given.batch:
            for precision in precisions:
                print(f"{network}, batch {batch}, {precision}", file=sys.stderr, flush=True)
                results.append(measured(network, batch, precision, given.rounds, given.seconds))
                gc.collect()
    print_table(COLUMNS, [cells(r) for r in results], [1, *range(3, len(COLUMNS))])
    for line in remarks(results):
        print(line)
    return write(given.out, machine(), results, rounds=given.rounds)


if __name__ == "__main__":
    main()
