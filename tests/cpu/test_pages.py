"""Pages of mapped weights are let go, and nothing is lost by it."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from netdsl.backends.cpu.bank import WeightBank
from netdsl.backends.cpu.pages import release
from netdsl.graph.build import build
from netdsl.weights import load, match

COUNT = 1 << 20  # float32, 4 MiB
VALUES = np.arange(COUNT, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "values.bin"
    place.write_bytes(b"head" + VALUES.tobytes())
    return place


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory now."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which pages are resident")
def test_released_pages_leave_memory_and_come_back(path: Path) -> None:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    values = np.ndarray((COUNT,), np.float32, mapped, 4)
    assert values.sum() > 0 and resident(path) >= 4 * COUNT
    release(values.reshape(1024, -1)[:512])
    assert resident(path) <= 2 * COUNT + 4 * mmap.PAGESIZE  # less where the system drops large pages whole
    release(values)
    assert resident(path) == 0
    assert np.array_equal(values, VALUES)


def test_changed_copies_are_left_alone(path: Path) -> None:
    changed = np.memmap(path, np.float32, "c", offset=4)
    changed[:] = 7
    changed.flags.writeable = False
    release(changed)
    assert (changed == 7).all()


@pytest.mark.parametrize("values", [np.ones(9, np.float32), np.frombuffer(b"12345678", np.float32)])
def test_arrays_that_are_not_mapped_are_left_alone(values: np.ndarray) -> None:  # type: ignore[type-arg]
    before = values.copy()
    release(values)
    assert np.array_equal(values, before)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which pages are resident")
def test_a_bank_releases_what_it_packed(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    graph = build("netdsl 1\nnet sample {\n  input x 1024\n  dense 1024\n}\n")
    place = tmp_path / "weights.safetensors"
    save_file({"0.weight": np.ones((1024, 1024), np.float32), "0.bias": np.ones(1024, np.float32)}, place)
    bank = WeightBank(match(graph, load(place)))
    packed = bank.pack(("key",), lambda: 2 * bank.required(graph.nodes[1], "weight"))
    assert (packed.values == 2).all() and resident(place) < 64 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which pages are resident")
def test_rows_are_let_go_when_the_next_are_taken(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    graph = build("netdsl 1\nnet sample {\n  input x 8192\n  dense 1024\n}\n")
    place, values = tmp_path / "weights.safetensors", np.arange(1 << 23, dtype=np.float32).reshape(1024, 8192)
    save_file({"0.weight": values, "0.bias": np.ones(1024, np.float32)}, place)
    bank = WeightBank(match(graph, load(place)))
    rows, most = bank.rows(graph.nodes[1], "weight"), 0
    for first in range(0, 1024, 64):
        assert np.array_equal(rows[first : first + 64], values[first : first + 64])
        most = max(most, resident(place))
    assert most < values.nbytes // 2
