"""safetensors headers, zip directories and .npy headers that lie: one clear error each, and no memory spent."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import weight_files as wf
from refusals import fails

SAFE_LIES = {
    "short": b"\x10\0\0",
    "length-beyond-file": struct.pack("<Q", 2**60) + b"{}",
    "length-negative": struct.pack("<q", -1) + b"{}",
    "length-too-large": struct.pack("<Q", 9 << 20) + b"{" + b" " * (9 << 20),
    "no-json": wf.raw_safetensors("{nonsense"),
    "no-object": struct.pack("<Q", 2) + b"[]",
    "not-utf8": struct.pack("<Q", 4) + b'{"\xff"',
    "deep": wf.raw_safetensors('{"a":' + "[" * 200_000 + "]" * 200_000 + "}"),
    "nan": wf.raw_safetensors('{"a": NaN}'),
    "huge-number": wf.raw_safetensors('{"a": ' + "9" * 6000 + "}"),
    "entry-no-object": wf.raw_safetensors('{"a": 5}'),
    "entry-empty": wf.raw_safetensors('{"a": {}}'),
    "twice": wf.raw_safetensors('{"a": {}, "a": {}}'),
}
ENTRY = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
SAFE_CHANGES = {
    "dtype": {"dtype": "F128"}, "dtype-list": {"dtype": ["F32"]}, "dtype-size": {"dtype": "F64"},
    "shape": {"shape": [4]}, "shape-negative": {"shape": [-3]}, "shape-text": {"shape": "3"},
    "shape-float": {"shape": [3.0]}, "shape-bool": {"shape": [True]}, "shape-huge": {"shape": [2**62, 2**62]},
    "shape-empty-huge": {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}, "shape-deep": {"shape": [1] * 99},
    "offsets-short": {"data_offsets": [0]}, "offsets-text": {"data_offsets": ["0", "12"]},
    "offsets-reversed": {"data_offsets": [12, 0]}, "offsets-negative": {"data_offsets": [-12, 0]},
    "offsets-beyond": {"data_offsets": [0, 2**62], "shape": [2**60]}, "offsets-hole": {"data_offsets": [4, 16]},
    "offsets-float": {"data_offsets": [0.0, 12.0]}, "offsets-astronomical": {"data_offsets": [0, 10**400]},
}  # fmt: skip


@pytest.mark.parametrize("kind", SAFE_LIES)
def test_safetensors_headers_that_lie(tmp_path, kind):
    fails(tmp_path, SAFE_LIES[kind], ("weights-format", "weights-truncated", "weights-too-large"), name="a.safetensors")


@pytest.mark.parametrize("kind", SAFE_CHANGES)
@pytest.mark.parametrize("room", [12, 16, 24])
def test_safetensors_entries_that_lie(tmp_path, kind, room):
    content = wf.raw_safetensors(json.dumps({"a": ENTRY | SAFE_CHANGES[kind]}), b"\0" * room)
    fails(tmp_path, content, ("weights-format", "weights-truncated", "weights-too-large"), name="a.safetensors")


def test_safetensors_overlap_and_tail(tmp_path):
    two = json.dumps({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 20]}})
    fails(tmp_path, wf.raw_safetensors(two, b"\0" * 20), "weights-format", "overlaps", name="a.safetensors")
    one = wf.raw_safetensors(json.dumps({"a": ENTRY}), b"\0" * 20)
    fails(tmp_path, one, "weights-format", "belong to no tensor", name="a.safetensors")


def npz_of(members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return out.getvalue()


def npy(header, data=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


NPY_LIES = {
    "no-magic": b"hello" * 10,
    "empty": b"",
    "version": b"\x93NUMPY\x09\x00" + b"x" * 99,
    "header-cut": b"\x93NUMPY\x01\x00\xff\xff{",
    "header-code": npy("__import__('os').system('touch touched')"),
    "header-deep": npy("(" * 5000 + ")" * 5000),
    "header-long": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" + " " * 20_000, b"\0" * 4),
    "shape-beyond": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999,), }", b"\0" * 4),
    "shape-short": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
    "shape-negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", b"\0" * 4),
    "structured": npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 4),
    "text": npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }", b"\0" * 16),
    "complex": npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
    "unterminated": npy("{'descr': '''<f4"),
}


@pytest.mark.parametrize("kind", NPY_LIES)
def test_npz_members_that_lie(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = npz_of({"w.npy": NPY_LIES[kind]}, method)
        fails(tmp_path, content, ("weights-format", "weights-too-large"), name="a.npz")
    assert not (tmp_path / "touched").exists()


def test_npz_of_objects(tmp_path):
    content = wf.npz_bytes({"w": np.array([{"a": 1}, None], object)})
    fails(tmp_path, content, "weights-unsafe", "Python objects", name="a.npz")


def test_zip_bombs(tmp_path):
    bomb = npz_of({"w.npy": b"\0" * (70 << 20)})
    fails(tmp_path, bomb, "weights-too-large", "would inflate to", name="a.npz")
    raw = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", b"\0" * 16)
    lying = npz_of({"w.npy": raw})
    for claimed in (len(raw) - 4, len(raw) + 4, 2**31):  # the directory's size, which the data then does not have
        at = lying.rindex(b"PK\1\2") + 24
        changed = lying[:at] + struct.pack("<I", claimed) + lying[at + 4 :]
        fails(tmp_path, changed, ("weights-format", "weights-too-large"), name="a.npz")


def test_overlapping_members(tmp_path):
    """The bomb that no single ratio shows: many names for the same compressed bytes."""
    content = npz_of({"a.npy": b"\0" * 4000, "b.npy": b"\0" * 4000})
    second = content.rindex(b"PK\1\2") + 42
    content = content[:second] + struct.pack("<I", 0) + content[second + 4 :]
    fails(tmp_path, content, ("weights-unsafe", "weights-truncated", "weights-format"), name="a.npz")


def test_zip_oddities(tmp_path):
    raw = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"\0" * 4)
    with pytest.warns(UserWarning, match="Duplicate"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("w.npy", raw)
            file.writestr("w.npy", raw)
    fails(tmp_path, out.getvalue(), "weights-format", "twice", name="a.npz")
    fails(tmp_path, npz_of({"w.npy": raw}, zipfile.ZIP_LZMA), "weights-format", "compressed", name="a.npz")
    fails(tmp_path, npz_of({"readme.txt": b"hi"}), "weights-format", "no .npy", name="a.npz")
    plain = npz_of({"w.npy": raw}, zipfile.ZIP_STORED)
    at = plain.rindex(b"PK\1\2")
    encrypted = plain[: at + 8] + b"\x01" + plain[at + 9 :]
    fails(tmp_path, encrypted, "weights-format", "encrypted", name="a.npz")
    far = plain[: at + 42] + struct.pack("<I", 2**31) + plain[at + 46 :]
    fails(tmp_path, far, ("weights-format", "weights-truncated"), name="a.npz")
    damaged = bytearray(npz_of({"w.npy": raw}))
    damaged[60] ^= 0xFF
    fails(tmp_path, bytes(damaged), "weights-format", name="a.npz")
