"""PyTorch checkpoints: the zip archive (PyTorch 1.6 and later) and the older stream of pickles, read without PyTorch.

Zip: `ROOT/data.pkl` describes the tensors, `ROOT/data/KEY` holds each storage's values, uncompressed.
Older: five pickles (a magic number, a protocol number, facts on the machine, the object, the storages' keys), then for
each key an int64 element count and the values.
Source: torch/serialization.py, whose docstrings and comments define both.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from netdsl.errors import WeightsError
from netdsl.weights import archive
from netdsl.weights.archive import Member
from netdsl.weights.tensors import COUNTERS, STORED_AS, Entry, WeightsFile, shown
from netdsl.weights.unpickle import MAX_PICKLE, STATE_HINT, Machine, Storage, Strided

MAGIC = 0x1950A86A20F9469CFC6C
NESTED = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep the tensors
WRAPPER = "module."  # what torch.nn.DataParallel puts before every name


def in_archive(members: dict[str, Member]) -> bool:
    """Whether these are the members of a checkpoint."""
    return any(name.rpartition("/")[2] == "data.pkl" for name in members)


def looks_like_pickle(file: WeightsFile) -> bool:
    """Whether the file begins as a pickle of protocol 2 or later does."""
    return file.data[0] == 0x80


def read_zip(file: WeightsFile, members: dict[str, Member]) -> dict[str, Entry]:
    """Every tensor of a zip checkpoint, as views into the mapped file. Raises WeightsError."""
    names = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
    root = names[0].removesuffix("data.pkl")
    if len(names) != 1 or root + "constants.pkl" in members:
        raise file.fault("weights-format", "a TorchScript archive or several checkpoints in one", hint=STATE_HINT)
    order = members.get(root + "byteorder")
    if order and bytes(archive.head(file, order, 16)) != b"little":
        raise file.fault("weights-format", "its values are not stored in little-endian order")
    member = members[names[0]]
    if member.size > MAX_PICKLE:
        raise file.fault("weights-too-large", f"its pickle has {member.size} bytes; at most {MAX_PICKLE} are read")
    machine = Machine(file)
    state = _state(file, machine.run(io.BytesIO(archive.content(file, member))))
    used = {tensor.storage.key for tensor in state.values()}
    places = {key: _zip_place(file, machine.storages[key], members.get(f"{root}data/{key}")) for key in used}
    return _entries(file, state, places)


def read_pickled(file: WeightsFile) -> dict[str, Entry]:
    """Every tensor of an older checkpoint, as views into the mapped file. Raises WeightsError."""
    stream, machine = io.BytesIO(file.data[:MAX_PICKLE]), Machine(file)
    if machine.run(stream) != MAGIC:
        raise file.fault("weights-format", "a pickle, but not one that PyTorch wrote", hint=STATE_HINT)
    machine.run(stream)  # the protocol number: 1001 in every version
    facts = machine.run(stream)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise file.fault("weights-format", "its values are not stored in little-endian order")
    state = _state(file, machine.run(stream))
    places = _stream_places(file, machine, machine.run(stream), stream.tell())
    for tensor in state.values():
        if tensor.storage.key not in places:
            raise _missing(file, tensor.storage)
    return _entries(file, state, places)


def _stream_places(file: WeightsFile, machine: Machine, keys: Any, at: int) -> dict[str, int]:
    """Byte offset of each storage's values in an older checkpoint."""
    if not isinstance(keys, list):
        raise file.fault("weights-format", "the list of tensor storages is missing")
    places: dict[str, int] = {}
    for key in keys:
        storage = machine.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in places:
            raise file.fault("weights-format", "the list of tensor storages does not fit the tensors")
        length = storage.elements * _item(storage)
        if at + 8 + length > file.size:
            raise file.fault("weights-truncated", f"the values of {shown(key)} lie beyond the end of the file")
        if int.from_bytes(file.data[at : at + 8], "little") != storage.elements:
            raise file.fault("weights-format", f"the tensor storage {shown(key)} has another size than described")
        places[key] = at + 8
        at += 8 + length
    return places


def _zip_place(file: WeightsFile, storage: Storage, member: Member | None) -> int:
    """Byte offset of a storage's values in a zip checkpoint."""
    if member is None:
        raise _missing(file, storage)
    if member.deflated:
        raise file.fault("weights-format", "its tensors are compressed, which PyTorch never writes")
    if member.size != storage.elements * _item(storage):
        raise file.fault("weights-format", f"the tensor storage {shown(storage.key)} has another size than described")
    return member.start


def _item(storage: Storage) -> int:
    return np.dtype(STORED_AS[storage.dtype]).itemsize


def _missing(file: WeightsFile, storage: Storage) -> WeightsError:
    return file.fault("weights-format", f"the tensor storage {shown(storage.key)} is not in the file")


def _entries(file: WeightsFile, state: dict[str, Strided], places: dict[str, int]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, tensor in state.items():
        offset = places[tensor.storage.key] + tensor.offset * _item(tensor.storage)
        entries[name] = file.entry(name, tensor.storage.dtype, tensor.shape, offset, tensor.strides)
    return entries


def _state(file: WeightsFile, value: Any) -> dict[str, Strided]:
    """The named tensors of what was pickled: the object itself, or what it holds under one of NESTED."""
    found = value if isinstance(value, dict) else {}
    for _ in NESTED:
        found = next((found[key] for key in NESTED if isinstance(found.get(key), dict)), found)
    tensors = {name: tensor for name, tensor in found.items() if isinstance(tensor, Strided)}
    if not tensors:
        names = ", ".join(shown(name, 30) for name in list(found)[:8])
        what = f"a dictionary with the keys {names}" if names else f"a {type(value).__name__}"
        raise file.fault("weights-format", f"no dictionary of named tensors is in it, but {what}", hint=STATE_HINT)
    if all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] != COUNTERS}
