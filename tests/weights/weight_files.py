"""Writers of weights files, byte by byte, so that tests can write wrong ones too, and small networks that they fit."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netdsl.errors import Source
from netdsl.graph.ir import Graph, Node, Stored, WeightsSpec
from netdsl.ops.base import Input
from netdsl.tensor import TensorType

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage",
    "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
    "bool": "BoolStorage",
}  # fmt: skip
SAFE = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint8": "U8", "bool": "BOOL"}


def sample(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of a small network, with a step counter as batch normalization has."""
    rng = np.random.default_rng(seed)
    shapes = {"conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "bn1.running_var": (4,), "fc.weight": (2, 4)}
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return tensors | {"bn1.num_batches_tracked": np.array(7)}


def network(shapes: dict[str, tuple[int, ...]], **fields: Any) -> Graph:
    """A graph of which only the stored tensors matter."""
    kind = TensorType((1, 1, 1))
    nodes = []
    for name, shape in shapes.items():
        path, _, role = name.rpartition(".")
        nodes.append(Node(path, Input(kind), (), kind, {role: Stored(name, shape)}))
    return Graph("small", tuple(nodes), (), (), Source("<text>", ""), **fields)


def fitting(tensors: dict[str, np.ndarray], weights: WeightsSpec | None = None) -> Graph:
    """The network that these tensors belong to."""
    shapes = {name: np.shape(t) for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    return network(shapes, weights=weights)


# safetensors


def safetensors_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": SAFE[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    return raw_safetensors(json.dumps(header), data)


def raw_safetensors(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


# pickles


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A call of a global, with the arguments."""

    function: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    """A reference that the reader resolves."""

    value: Any


def pickled(value: Any) -> bytes:
    """A protocol 2 pickle."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return opcodes(value.function) + opcodes(value.arguments) + b"R"
        case Persistent():
            return opcodes(value.value) + b"Q"
        case bytes():
            return value  # opcodes as they are
    raise TypeError(value)


def tensor(key: str, array: np.ndarray, *, view: Any = (), **changes: Any) -> Call:
    """The description of a tensor that fills the storage `key`. `changes` replace parts of it."""
    strides = tuple(s // array.itemsize for s in array.strides)
    part = {"type": STORAGES[array.dtype.name], "elements": array.size, "offset": 0}
    part |= {"shape": array.shape, "strides": strides} | changes
    reference = ("storage", Global("torch", part["type"]), key, "cpu", part["elements"], *view)
    arguments = (Persistent(reference), part["offset"], part["shape"], part["strides"], False, None)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def described(tensors: dict[str, np.ndarray]) -> dict[str, Call]:
    return {name: tensor(str(i), array) for i, (name, array) in enumerate(tensors.items())}


def storages(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {str(i): array for i, array in enumerate(tensors.values())}


# PyTorch checkpoints


def zip_checkpoint(
    state: Any, data: dict[str, np.ndarray], root: str = "archive", method: int = zipfile.ZIP_STORED
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr(f"{root}/data.pkl", pickled(state))
        file.writestr(f"{root}/byteorder", "little")
        for key, array in data.items():
            file.writestr(f"{root}/data/{key}", array.tobytes())
        file.writestr(f"{root}/version", "3\n")
    return out.getvalue()


def old_checkpoint(state: Any, data: dict[str, np.ndarray], little: bool = True) -> bytes:
    facts = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    out = pickled(MAGIC) + pickled(1001) + pickled(facts) + pickled(state) + pickled(list(data))
    return out + b"".join(struct.pack("<q", array.size) + array.tobytes() for array in data.values())


def npz_bytes(tensors: dict[str, np.ndarray], compressed: bool = False) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **tensors)
    return out.getvalue()


def every_format(tensors: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The same tensors in each format that is read."""
    return {
        "a.safetensors": safetensors_bytes(tensors),
        "a.npz": npz_bytes(tensors),
        "compressed.npz": npz_bytes(tensors, compressed=True),
        "zip.pth": zip_checkpoint(described(tensors), storages(tensors)),
        "old.pth": old_checkpoint(described(tensors), storages(tensors)),
    }


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
