"""Random damage to small valid files of every format: the loader answers with tensors or with WeightsError."""

import struct
import warnings

import numpy as np
import pytest
import weight_files as wf

from netdsl.errors import WeightsError
from netdsl.weights import load

ROUNDS = 1500  # of each format; some two seconds
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]


def damaged(rng: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """One to four random changes."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(out) + 1))
        size = int(rng.integers(1, 17))
        match rng.integers(0, 7):
            case 0:  # a byte
                out[at : at + 1] = rng.bytes(1)
            case 1:  # a bit
                if at < len(out):
                    out[at] ^= 1 << int(rng.integers(0, 8))
            case 2:  # a number at a border
                width, code = [(1, "B"), (2, "<H"), (4, "<I"), (8, "<Q")][rng.integers(0, 4)]
                number = NUMBERS[rng.integers(0, len(NUMBERS))] % 2 ** (8 * width)
                out[at : at + width] = struct.pack(code, number)
            case 3:  # something cut out
                del out[at : at + size]
            case 4:  # something twice
                out[at:at] = out[at : at + size]
            case 5:  # a piece of another format, or of elsewhere
                source = other if rng.integers(0, 2) else content
                start = int(rng.integers(0, len(source)))
                out[at : at + size] = source[start : start + size]
            case 6:  # the end gone
                del out[at:]
    return bytes(out)


@pytest.mark.parametrize("name", list(wf.every_format(wf.sample())))
def test_damaged_files_load_or_are_refused(tmp_path, name):
    files = wf.every_format({"a.weight": np.arange(4, dtype=np.float32), "a.bias": np.ones(2, np.float16)})
    rng = np.random.default_rng(sum(name.encode()))
    others = list(files.values())
    refused = 0
    for _ in range(ROUNDS):
        content = damaged(rng, files[name], others[rng.integers(0, len(others))])
        path = wf.write(tmp_path, name, content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, on headers that Python 2 wrote
            try:
                tensors = load(path)
                for key in tensors:
                    assert tensors[key].nbytes <= 8 * 2**20
            except WeightsError as error:
                refused += 1
                assert str(error).isprintable() or "\n" in str(error)
                assert error.path == str(path) and error.code.startswith("weights-")
    assert refused > ROUNDS / 10  # the damage does reach what is checked
