"""One engine, one network, one image, as a process of its own: what the start-up and memory programs run.

    python bench/engines.py netdsl NET WEIGHTS.safetensors THREADS
    python bench/engines.py onnxruntime MODEL.onnx THREADS

Prints the process's peak resident memory in bytes. What is imported is only what such a process needs.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

SCRIPT = Path(__file__)


def run_netdsl(net: str, weights: str, threads: str) -> None:
    import numpy as np

    import netdsl

    model = netdsl.compile(net, weights, threads=int(threads))
    model(*(np.zeros((1, *spec.type.shape), np.float32) for spec in model.graph.inputs))


def run_onnxruntime(path: str, threads: str) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {spec.name: np.zeros((1, *spec.shape[1:]), np.float32) for spec in session.get_inputs()})


def peak_bytes() -> int:
    """Peak resident memory of this process since it became this program.

    Linux also says it as VmHWM; ru_maxrss there includes what the process was before it ran this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    engine, *arguments = sys.argv[1:]
    {"netdsl": run_netdsl, "onnxruntime": run_onnxruntime}[engine](*arguments)
    print(peak_bytes())
