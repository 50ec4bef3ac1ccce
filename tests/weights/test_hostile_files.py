"""Files made to run code, to fill the memory or to lie: each ends in one clear error, and nothing happens."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import weight_files as wf
from refusals import fails

from netdsl.weights import unpickle

WRITERS = {"zip": lambda pickle_bytes: zipped(pickle_bytes), "old": lambda pickle_bytes: old(pickle_bytes)}


def zipped(pickle_bytes, data=()):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickle_bytes)
        for key, raw in data:
            file.writestr(f"archive/data/{key}", raw)
    return out.getvalue()


def old(pickle_bytes):
    return wf.pickled(wf.MAGIC) + wf.pickled(1001) + wf.pickled({"little_endian": True}) + pickle_bytes + wf.pickled([])


MARK = "touched"
TOUCH = wf.opcodes(f"touch {MARK}")
MALICIOUS = {
    "reduce": (b"cposix\nsystem\n" + wf.opcodes((f"touch {MARK}",)) + b"R", "posix.system"),
    "reduce-of-eval": (b"c__builtin__\neval\n" + wf.opcodes((f"open('{MARK}','w')",)) + b"R", "__builtin__.eval"),
    "inst": (b"(" + TOUCH + b"iposix\nsystem\n", "posix.system"),
    "inst-of-allowed": (b"(" + TOUCH + b"icollections\nOrderedDict\n", "opcode INST"),
    "obj": (b"(csubprocess\nPopen\n" + TOUCH + b"o", "subprocess.Popen"),
    "obj-of-allowed": (b"(ccollections\nOrderedDict\n" + TOUCH + b"o", "opcode OBJ"),
    "newobj": (b"csubprocess\nPopen\n" + wf.opcodes((f"touch {MARK}",)) + b"\x81", "subprocess.Popen"),
    "newobj-of-allowed": (b"ccollections\nOrderedDict\n)\x81", "opcode NEWOBJ"),
    "newobj-ex": (b"ccollections\nOrderedDict\n)}\x92", "opcode NEWOBJ_EX"),
    "stack-global": (b"\x8c\x05posix\x8c\x06system\x93" + wf.opcodes((f"touch {MARK}",)) + b"R", "posix.system"),
    "stack-global-of-numbers": (b"K\x01K\x02\x93", "no name"),
    "dotted-name": (b"\x8c\x05torch\x8c\x10serialization.os\x93", "torch.serialization.os"),
    "module-in-allowed-clothes": (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", "__globals__"),
    "split-elsewhere": (b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93\x8c\x00\x8c\x01a\x93", "asks for .a"),
    "extension-1": (b"\x82\x01", "opcode EXT1"),
    "extension-2": (b"\x83\x01\x00", "opcode EXT2"),
    "extension-4": (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
    "text-persistent-id": (b"Pos.system\n", "opcode PERSID"),
    "build-with-setstate": (b"cfunctools\npartial\n)R" + wf.opcodes({"__setstate__": "x"}) + b"b", "functools.partial"),
    "build-on-a-function": (b"ctorch._utils\n_rebuild_tensor_v2\nN" + wf.opcodes({"__code__": 1}) + b"\x86b", "BUILD"),
    "build-on-a-class": (b"ctorch\nFloatStorage\n" + wf.opcodes({"__reduce__": 1}) + b"b", "BUILD"),
    "set": (b"\x8f", "opcode EMPTY_SET"),
    "buffer": (b"\x97", "opcode NEXT_BUFFER"),
    "escape-codes": (b"c\x1b[2Jevil\nname\n", "evil"),
    "torch-load": (b"ctorch.serialization\nload\n" + wf.opcodes(("x",)) + b"R", "torch.serialization.load"),
    "hub": (b"ctorch.hub\nload_state_dict_from_url\n", "torch.hub"),
    "numpy-load": (b"cnumpy\nload\n", "numpy.load"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALICIOUS)
@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_run(tmp_path, monkeypatch, kind, writer):
    monkeypatch.chdir(tmp_path)
    code, name = MALICIOUS[kind]
    error = fails(tmp_path, WRITERS[writer](b"\x80\x04" + code + b"."), "weights-unsafe")
    assert name in error.message and "nothing was run" in error.message
    assert not (tmp_path / MARK).exists()


def test_real_exploit_by_the_real_pickler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Exploit:
        def __reduce__(self):
            return os.system, (f"touch {MARK}",)

    for protocol in range(6):
        raw = pickle.dumps({"state_dict": {"w": Exploit()}}, protocol)
        for name in ("a.pth", "a.bin"):  # protocols 0 and 1 carry no mark that would tell them by content
            error = fails(tmp_path, raw, "weights-unsafe", name=name)
            assert "posix.system" in error.message or "nt.system" in error.message
        fails(tmp_path, zipped(raw), "weights-unsafe")
    assert not (tmp_path / MARK).exists()


DAMAGED = {
    "empty-stack": b"\x80\x02.",
    "pop-nothing": b"\x80\x020.",
    "mark-missing": b"\x80\x02]e.",
    "tuple-of-nothing": b"\x80\x02\x85.",
    "get-unknown": b"\x80\x02h\x07.",
    "put-nothing": b"\x80\x02q\x00.",
    "odd-items": b"\x80\x02}(K\x01u.",
    "append-to-number": b"\x80\x02K\x01K\x02a.",
    "items-into-list": b"\x80\x02](K\x01K\x02u.",
    "call-a-number": b"\x80\x02K\x01)R.",
    "call-with-a-list": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "unknown-opcode": b"\x80\x02\xff.",
    "bad-utf8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "bad-number": b"\x80\x02Ixyz\n.",
    "huge-decimal": b"\x80\x02I" + b"9" * 6000 + b"\n.",
    "negative-length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "not-a-dictionary": wf.pickled([1, 2]),
    "no-tensors": wf.pickled({"a": 1, "b\x1b[31m": "c"}),
    "itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "twice": b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.",
    "tensor-of-nothing": wf.pickled({"w": wf.Call(wf.Global("torch._utils", "_rebuild_tensor_v2"), (1, 2, 3, 4))}),
    "tensor-short": wf.pickled({"w": wf.Call(wf.Global("torch._utils", "_rebuild_tensor_v2"), (1,))}),
    "tensor-long": wf.pickled({"w": wf.Call(wf.Global("torch._utils", "_rebuild_tensor_v2"), (1,) * 1000)}),
    "parameter-of-nothing": wf.pickled({"w": wf.Call(wf.Global("torch._utils", "_rebuild_parameter"), (1,))}),
    "size-of-nothing": wf.pickled({"w": wf.Call(wf.Global("torch", "Size"), ())}),
    "ordered-of-number": wf.pickled(wf.Call(wf.Global("collections", "OrderedDict"), (5,))),
    "ordered-of-triples": wf.pickled(wf.Call(wf.Global("collections", "OrderedDict"), ([(1, 2, 3)],))),
    "reference-of-number": b"\x80\x02K\x01Q.",
    "reference-short": wf.pickled({"w": wf.Persistent(("storage",))}),
    "reference-other": wf.pickled({"w": wf.Persistent(("module", 1, 2, 3, 4))}),
    "reference-type": wf.pickled({"w": wf.Persistent(("storage", "torch.FloatStorage", "0", "cpu", 4))}),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("writer", WRITERS)
def test_damaged_pickles(tmp_path, kind, writer):
    fails(tmp_path, WRITERS[writer](DAMAGED[kind]), ("weights-format", "weights-truncated"))


BASE = np.arange(12, dtype=np.float32)
LIES = {
    "offset": {"offset": 1},
    "far-offset": {"offset": 2**62},
    "negative-offset": {"offset": -1},
    "shape": {"shape": (13,)},
    "large-shape": {"shape": (2**20, 2**20), "strides": (0, 0)},
    "repeated-shape": {"shape": (2**13, 2**13), "strides": (0, 0)},
    "huge-shape": {"shape": (2**40,), "strides": (1,)},
    "overflowing-shape": {"shape": (2**31,) * 12, "strides": (0,) * 12},
    "empty-but-huge": {"shape": (0, 2**62, 2**62), "strides": (0, 0, 0)},
    "negative-shape": {"shape": (-1,)},
    "float-shape": {"shape": (12.0,)},
    "bool-shape": {"shape": (True,)},
    "text-shape": {"shape": "12"},
    "many-axes": {"shape": (1,) * 100, "strides": (1,) * 100},
    "strides": {"shape": (2, 6), "strides": (7, 1)},
    "negative-strides": {"strides": (-1,)},
    "huge-strides": {"shape": (2, 6), "strides": (2**62, 1)},
    "astronomical-strides": {"shape": (2, 6), "strides": (2**400, 1)},
    "missing-strides": {"strides": ()},
    "none-strides": {"strides": None},
    "elements": {"elements": 11},
    "more-elements": {"elements": 13},
    "huge-elements": {"elements": 2**50},
    "astronomical-elements": {"elements": 2**900},
    "negative-elements": {"elements": -1},
    "type": {"type": "DoubleStorage"},
}


@pytest.mark.parametrize("kind", LIES)
@pytest.mark.parametrize("writer", [wf.zip_checkpoint, wf.old_checkpoint])
def test_tensors_that_lie(tmp_path, kind, writer):
    content = writer({"w": wf.tensor("0", BASE, **LIES[kind])}, {"0": BASE})
    fails(tmp_path, content, ("weights-format", "weights-truncated", "weights-too-large"))


def test_storages_that_lie(tmp_path):
    state = {"w": wf.tensor("0", BASE)}
    bytes_only = {"w": wf.tensor("0", BASE, type="ByteStorage")}
    fails(tmp_path, wf.zip_checkpoint(bytes_only, {"0": BASE}), "weights-format", "another size")
    fails(tmp_path, wf.zip_checkpoint(state, {}), "weights-format", "not in the file")
    fails(tmp_path, wf.zip_checkpoint(state, {"0": BASE[:3]}), "weights-format", "another size")
    fails(tmp_path, wf.old_checkpoint(state, {}), "weights-format", "not in the file")
    fails(tmp_path, wf.old_checkpoint(state, {"0": BASE[:3]}), ("weights-format", "weights-truncated"))
    fails(tmp_path, wf.old_checkpoint(state, {"0": BASE, "1": BASE}), "weights-format", "does not fit")
    fails(tmp_path, wf.old_checkpoint(state, {"0": BASE}, little=False), "weights-format", "little-endian")
    two = {"a": wf.tensor("0", BASE), "b": wf.tensor("0", BASE, type="IntStorage")}
    fails(tmp_path, wf.zip_checkpoint(two, {"0": BASE}), "weights-format", "two different ways")
    big = zipped(wf.pickled(state), [("0", BASE.tobytes())])
    path = wf.write(tmp_path, "big.pth", big)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", "big")
    fails(tmp_path, path.read_bytes(), "weights-format", "little-endian")


def test_memory_bombs_in_pickles(tmp_path):
    huge = b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20)  # one number of a megabyte, used as every axis
    storage = wf.opcodes(wf.Persistent(("storage", wf.Global("torch", "FloatStorage"), "0", "cpu", 4)))
    sizes = b"(" + b"h\x00" * 16 + b"t"
    opcodes_of_tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00" + sizes * 2 + b"tR"
    bombs = {
        "bytes8": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
        "unicode8": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        "long4": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"N.",
        "memo": b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
        "memo-text": b"\x80\x02Np" + b"9" * 30 + b"\n.",
        "nested-tuples": b"\x80\x02)" + b"\x85" * 300_000 + b".",
        "nested-lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
        "marks": b"\x80\x02" + b"(" * 300_000 + b".",
        "doubling": b"\x80\x02)" + b"2\x86" * 200 + b"}\x86R.",
        "huge-number-as-shape": b"\x80\x02" + huge + b"q\x00" + opcodes_of_tensor * 200 + b".",
        "key-that-takes-forever-to-hash": b"\x80\x02})" + b"2\x86" * 200 + b"K\x01s.",
    }
    for raw in bombs.values():
        for writer in WRITERS.values():
            fails(tmp_path, writer(raw), ("weights-format", "weights-truncated", "weights-too-large"))


def test_work_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 1000)
    fails(tmp_path, zipped(b"\x80\x02" + b"N" * 2000 + b"."), "weights-too-large", "1000 steps")
    pairs = wf.opcodes([("a", 1)] * 400)
    call = b"ccollections\nOrderedDict\nq\x00" + pairs + b"\x85q\x01R" + b"h\x00h\x01R" * 100
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 4000)
    fails(tmp_path, zipped(b"\x80\x02" + call + b"."), ("weights-too-large", "weights-format"))


def test_long_pickles(tmp_path):
    raw = b"\x80\x02" + wf.opcodes("x" * (17 << 20)) + b"."
    fails(tmp_path, zipped(raw), "weights-too-large")
    fails(tmp_path, old(raw), "weights-too-large")


@pytest.mark.parametrize("name", list(wf.every_format(wf.sample())))
def test_truncated_anywhere(tmp_path, name):
    """Cut at every offset: an error each time, never a shorter set of tensors."""
    whole = wf.every_format({k: v for k, v in wf.sample().items() if "conv1.weight" not in k})[name]
    for length in range(len(whole)):
        fails(tmp_path, whole[:length], ("weights-truncated", "weights-format"), name=name)


def test_bombs_stay_small_and_quick(tmp_path):
    """The costliest files that the limits admit, in a process of at most 2 GB of address space and a minute."""
    wf.write(tmp_path, "steps.pth", zipped(b"\x80\x02" + b"]" * 1_100_000 + b"."))
    wf.write(tmp_path, "header.safetensors", wf.raw_safetensors('{"a": [' + "[]," * 2_700_000 + "0]}"))
    wf.write(tmp_path, "claims.pth", wf.zip_checkpoint({"w": wf.tensor("0", BASE, elements=2**45)}, {"0": BASE}))
    wf.write(tmp_path, "bytes.pth", zipped(b"\x80\x04\x8e" + struct.pack("<Q", 2**36) + b"x."))
    script = """
import pathlib, resource, sys
from netdsl.errors import WeightsError
from netdsl.weights import load
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        load(path)
    except WeightsError as error:
        print(error.code)
"""
    command, one_thread = [sys.executable, "-c", script, str(tmp_path)], os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=one_thread)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 4
