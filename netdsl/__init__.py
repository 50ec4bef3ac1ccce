"""netdsl compiles convolutional networks: a text file in, kernels for this very machine out.

    net = netdsl.compile("resnet18", weights="resnet18.safetensors")
    y = net(x)                                  # [N, 3, 224, 224] -> float32 [N, 1000]
    graph = netdsl.build("vgg16")               # shapes, parameters and costs only; starts no JIT

Each name below is imported when it is first used, so `import netdsl` itself costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from netdsl.compiler import compile as compile
    from netdsl.errors import DeviceError as DeviceError
    from netdsl.errors import FetchError as FetchError
    from netdsl.errors import InputError as InputError
    from netdsl.errors import NetError as NetError
    from netdsl.errors import NetWarning as NetWarning
    from netdsl.errors import SourceError as SourceError
    from netdsl.errors import WeightsError as WeightsError
    from netdsl.graph.build import build as build
    from netdsl.graph.ir import Graph as Graph
    from netdsl.model import Model as Model

_HOMES = {
    "compile": "netdsl.compiler",
    "build": "netdsl.graph.build",
    "Graph": "netdsl.graph.ir",
    "Model": "netdsl.model",
    "NetError": "netdsl.errors",
    "SourceError": "netdsl.errors",
    "WeightsError": "netdsl.errors",
    "InputError": "netdsl.errors",
    "DeviceError": "netdsl.errors",
    "FetchError": "netdsl.errors",
    "NetWarning": "netdsl.errors",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'netdsl' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
