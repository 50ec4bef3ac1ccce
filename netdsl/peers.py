"""Other inference engines, to be compared with: each runs a netdsl graph with the same weights, in float32.

A peer is asked to `prepare` a task and gives back a call without arguments; all settings are the ones its makers
advise for speed at the given number of threads. What it cannot run it refuses with `Unable` and a plain reason.
Packages are imported when a peer is used.
"""

from __future__ import annotations

import math
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from netdsl.errors import DeviceError, InputError, nearest
from netdsl.graph.ir import Graph
from netdsl.ops.base import Array

Call = Callable[[], list[Array]]  # one inference on the task's inputs: all outputs, [N, *shape] each

TOLERANCE = 1e-4  # chosen: the most by which answers may differ, relative to the largest value of an output
ROUNDED_TOLERANCE = 1e-2  # chosen: the same where netdsl runs in less than float32
_CONVERT_SECONDS = 900  # chosen: the converter of a peer is stopped after so long


class Unable(Exception):
    """A peer cannot run a network; says why in words."""


@dataclass
class Task:
    """What an engine is to run: a graph as built, stored tensors by name, threads, float32 inputs [N, *shape].

    expected   the outputs that netdsl gives, [N, *shape]
    tolerance  the most by which an answer may differ from them, relative to the largest value
    """

    graph: Graph
    weights: Mapping[str, Array]
    threads: int
    inputs: list[Array]
    expected: list[Array]
    tolerance: float = TOLERANCE

    @property
    def images(self) -> int:
        return len(self.inputs[0])

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the outputs of one image."""
        return [self.graph.nodes[spec.node].type.shape for spec in self.graph.outputs]

    @cached_property
    def onnx(self) -> bytes:
        """The network as an ONNX model."""
        from netdsl.onnx_export import to_onnx

        return to_onnx(self.graph, self.weights)

    def torchscript(self, path: Path) -> None:
        """Write the network for one image as a TorchScript file."""
        import torch

        with torch.inference_mode():
            self.traced([x[:1] for x in self.inputs]).save(str(path))

    def traced(self, inputs: list[Array]) -> Any:
        """The network as a TorchScript module, recorded on some inputs."""
        import torch

        from netdsl.torch_export import Network

        network = Network(self.graph, self.weights).eval()
        return torch.jit.trace(network, tuple(map(torch.from_numpy, inputs)), check_trace=False)


def difference(answers: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference of any output relative to its largest value; infinite for other shapes or NaN."""
    if [a.shape for a in answers] != [e.shape for e in expected]:
        return math.inf
    worst = 0.0
    for a, e in zip(answers, expected, strict=True):
        largest = float(np.abs(e).max(initial=0.0)) or 1.0
        far = float(np.abs(a - e).max(initial=0.0)) / largest
        worst = max(worst, far) if math.isfinite(far) else math.inf
    return worst


class Peer(ABC):
    """One engine.

    name      as on the command line; title: as people write it
    packages  what pip has to install for it
    modules   what is imported of these
    settings  how it is set up, for the record
    """

    name: str
    title: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    settings: str

    @abstractmethod
    def prepare(self, task: Task) -> Call:
        """The task made ready to be called. Raises Unable, or whatever the engine raises."""


class OnnxRuntime(Peer):
    name, title = "onnxruntime", "ONNX Runtime"
    packages = modules = ("onnxruntime", "onnx")
    settings = "CPU provider, all graph optimizations, batch size fixed"

    def prepare(self, task: Task) -> Call:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_free_dimension_override_by_name("N", task.images)
        session = onnxruntime.InferenceSession(task.onnx, options, providers=["CPUExecutionProvider"])
        feed = {spec.name: x for spec, x in zip(session.get_inputs(), task.inputs, strict=True)}
        names = [spec.name for spec in session.get_outputs()]
        return lambda: list(session.run(names, feed))


class OpenVino(Peer):
    name, title = "openvino", "OpenVINO"
    packages, modules = ("openvino", "onnx"), ("openvino", "onnx")
    settings = "CPU plugin, INFERENCE_PRECISION_HINT f32, PERFORMANCE_HINT LATENCY, batch size fixed"

    def prepare(self, task: Task) -> Call:
        import openvino

        core = openvino.Core()
        model = core.read_model(task.onnx)
        model.reshape({port: list(x.shape) for port, x in zip(model.inputs, task.inputs, strict=True)})
        rule = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": task.threads}  # fmt: skip
        compiled = core.compile_model(model, "CPU", rule)
        request = compiled.create_infer_request()
        feed, ports = dict(enumerate(task.inputs)), range(len(compiled.outputs))

        def call() -> list[Array]:
            results = request.infer(feed, share_inputs=True, share_outputs=True)
            return [results[i] for i in ports]

        return call


class Ncnn(Peer):
    name, title = "ncnn", "ncnn"
    packages = modules = ("ncnn", "pnnx", "torch", "onnx")
    settings = (
        "converted by pnnx from TorchScript, or from ONNX where that fails; fp16, bf16 and int8 off; a batch whole or "
        "image by image, whichever is faster"
    )

    def prepare(self, task: Task) -> Call:
        found: list[Call] = []
        reasons = []
        for source in ("TorchScript", "ONNX"):
            try:
                net = self._load(task, source)
                found = [self._image_by_image(net, task), *([self._whole(net, task)] if task.images > 1 else [])]
                right = [call for call in found if _agrees(call, task)]
                if right:
                    return min(right, key=_seconds)
            except Unable as error:
                reasons.append(f"from {source}: {error}")
        if not found:
            raise Unable("; ".join(reasons))
        return found[0]

    def _load(self, task: Task, source: str) -> Any:
        import ncnn

        net = ncnn.Net()
        for option in dir(net.opt):
            if option.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(net.opt, option, False)
        net.opt.num_threads = task.threads
        with TemporaryDirectory(prefix="netdsl-") as folder:
            converted = _run_pnnx(task, source, Path(folder))
            parameters, model = (str(converted.with_suffix(f".ncnn.{kind}")) for kind in ("param", "bin"))
            if net.load_param(parameters) or net.load_model(model):
                raise Unable("ncnn does not load what pnnx makes of it")
        return net

    def _image_by_image(self, net: Any, task: Task) -> Call:
        import ncnn

        def one(i: int) -> list[Array]:
            with net.create_extractor() as extractor:
                for k, x in enumerate(task.inputs):
                    extractor.input(f"in{k}", ncnn.Mat(x[i]))
                return [_extract(extractor, k).reshape(1, *shape) for k, shape in enumerate(task.shapes)]

        def call() -> list[Array]:
            parts = [one(i) for i in range(task.images)]
            return parts[0] if len(parts) == 1 else [np.concatenate(same) for same in zip(*parts, strict=True)]

        return call

    def _whole(self, net: Any, task: Task) -> Call:
        import ncnn

        def call() -> list[Array]:
            with net.create_extractor() as extractor:
                for k, x in enumerate(task.inputs):
                    extractor.input(f"in{k}", ncnn.Mat(x, batch_index=0))
                return [_extract(extractor, k, batch_index=0) for k in range(len(task.shapes))]

        return call


def _extract(extractor: Any, k: int, **how: Any) -> Array:
    status, value = extractor.extract(f"out{k}")
    if status:
        raise Unable(f"ncnn fails with status {status}")
    return np.array(value.numpy(**how))


def _agrees(call: Call, task: Task) -> bool:
    """Whether a call gives the expected answer; not when it fails, as older versions of ncnn do on batches."""
    try:
        return difference(call(), task.expected) <= task.tolerance
    except Exception:  # of whatever class
        return False


def _run_pnnx(task: Task, source: str, folder: Path) -> Path:
    """The stem of the files that pnnx makes of the network in a folder, from "TorchScript" or "ONNX"."""
    spec = util.find_spec("pnnx")
    assert spec is not None and spec.origin is not None
    program = Path(spec.origin).with_name("pnnx")
    if source == "ONNX":
        model = folder / "net.onnx"
        model.write_bytes(task.onnx)
    else:
        model = folder / "net.pt"
        task.torchscript(model)
    shapes = ",".join(f"[{','.join(map(str, (1, *x.shape[1:])))}]f32" for x in task.inputs)
    command = [str(program), model.name, f"inputshape={shapes}", "fp16=0"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_CONVERT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unable(f"pnnx took more than {_CONVERT_SECONDS} s to convert it") from None
    if done.returncode or not (folder / "net.ncnn.param").exists():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unable(f"pnnx does not convert it: {last[:200]}")
    return folder / "net"


def _seconds(call: Call) -> float:
    """Of the fastest of a few calls."""
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


class PyTorch(Peer):
    name, title = "torch", "PyTorch"
    packages = modules = ("torch",)
    settings = "torch.jit traced, frozen and optimized for inference: batch norms folded, oneDNN layouts"

    def prepare(self, task: Task) -> Call:
        import torch

        torch.set_num_threads(task.threads)
        inputs = tuple(map(torch.from_numpy, task.inputs))
        with torch.inference_mode():
            module = torch.jit.optimize_for_inference(torch.jit.freeze(task.traced(task.inputs)))

        def call() -> list[Array]:
            with torch.inference_mode():
                return [y.numpy() for y in module(*inputs)]

        return call


PEERS: tuple[Peer, ...] = (OnnxRuntime(), OpenVino(), Ncnn(), PyTorch())


def version(peer: Peer) -> str:
    """The installed version of a peer's first package."""
    return metadata.version(peer.packages[0])


def missing(peer: Peer) -> list[str]:
    """The packages that a peer needs and that are not installed."""
    found = zip(peer.packages, peer.modules, strict=True)
    return [package for package, module in found if util.find_spec(module) is None]


def installed() -> tuple[Peer, ...]:
    """The peers whose packages are there."""
    return tuple(peer for peer in PEERS if not missing(peer))


def choose(names: list[str]) -> tuple[Peer, ...]:
    """The peers of these names. Errors: InputError for an unknown name, DeviceError where packages are missing."""
    known = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in known:
            close = nearest(name, list(known))
            hint = f"did you mean {close}?" if close else f"there are {', '.join(known)}"
            raise InputError(f"no peer {name!r}", code="unknown-peer", hint=hint)
        absent = missing(known[name])
        if absent:
            message = f"{known[name].title} cannot be compared with: {' and '.join(absent)} not installed"
            raise DeviceError(message, code="no-peer", hint=f"pip install {' '.join(known[name].packages)}")
    return tuple(known[name] for name in dict.fromkeys(names))
