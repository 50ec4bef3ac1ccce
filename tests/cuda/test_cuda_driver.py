"""The run time over the driver, on a driver made of Python: packing, recording, arrays that stay, memory given back."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from simulated import Simulator, simulator

from netdsl.backends import reference
from netdsl.graph.build import build
from netdsl.profiles import Phases
from netdsl.weights import random_weights

TEXT = """netdsl 1
net small {
  input image 3x6x5
  conv 4 3x3 pad=1 | relu | maxpool 2x2 ceil=yes
  branches concat { conv 3 1x1 | sigmoid
    skip }
  avgpool global | flatten | dense 3 | softmax
}
"""

FACTOR = "netdsl 1\nnet factor {\n  input v 3\n  scale\n}\n"  # as few launches as there can be


@pytest.fixture(scope="module")
def virtual() -> Iterator[Simulator]:
    """A process of its own: the virtual driver takes the real one's place for good."""
    with simulator() as running:
        yield running


def case() -> tuple[Any, np.ndarray, np.ndarray]:
    graph = build(TEXT)
    weights = random_weights(graph, 1)
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32)
    return graph, x, reference.run(graph, weights, [x])[0]


def _program(text: str = TEXT) -> tuple[Any, Any]:
    import virtual_driver

    from netdsl.backends.cuda import program as cuda

    fake = virtual_driver.install()
    graph = build(text)
    return fake, cuda.lower(graph, random_weights(graph, 1))


def _host_calls(x: np.ndarray) -> tuple[list[np.ndarray], list[str], int]:
    fake, program = _program()
    answers = [program([v])[0] for v in (x, 2 * x, x)]
    return answers, fake.log, len(program.plan(len(x)).steps)


def test_calls_from_the_host_are_one_graph(virtual: Simulator) -> None:
    _, x, expected = case()
    answers, log, steps = virtual.apply(_host_calls, x)
    np.testing.assert_allclose(answers[0], expected, atol=1e-5)
    assert np.array_equal(answers[0], answers[2]) and not np.allclose(answers[0], answers[1])
    assert [entry for entry in log if entry.startswith(("graph", "launch"))] == [f"graph of {steps}"] * 3


def _device_calls(x: np.ndarray) -> tuple[list[Any], list[str], int]:
    fake, program = _program()
    from netdsl.backends.cuda import device
    from netdsl.backends.cuda.tensors import DeviceTensor

    given = [DeviceTensor(device.runtime().upload(v), v.shape) for v in (x, 2 * x, x)]
    answers = [program([v])[0] for v in given]
    one = program([x])[0]
    facts = answers[0].__cuda_array_interface__
    return [*(y.numpy() for y in answers), one, facts["shape"], facts["data"][0] != 0], fake.log, len(answers)


def test_arrays_on_the_device_stay_there(virtual: Simulator) -> None:
    _, x, expected = case()
    (first, second, third, host, shape, placed), log, _ = virtual.apply(_device_calls, x)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert np.array_equal(first, third) and np.array_equal(first, host) and not np.allclose(first, second)
    assert shape == (2, 3) and placed
    assert log.count("launch pack") == log.count("launch unpack") == 3  # they read and write the caller's arrays
    assert "cuStreamWaitEvent" in log  # what the caller has queued comes first


def _without_page_locked_memory(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    fake, program = _program(FACTOR)
    locked = program([x])[0]
    fake.unlockable = True
    without = program([np.concatenate([x, x])])[0]
    return locked, without, len(fake.locked)


def test_where_no_memory_can_be_page_locked_copies_go_without(virtual: Simulator) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    locked, without, blocks = virtual.apply(_without_page_locked_memory, x)
    assert np.array_equal(without, np.concatenate([locked, locked])) and locked.any()
    assert blocks == 4  # two pieces for batches of 1 and of 2, and none for 4


def _phases() -> tuple[Any, list[str]]:
    fake, program = _program(FACTOR)
    import netdsl
    from netdsl.backends.cuda import profile

    x = np.ones((2, 3), np.float32)
    program.images_at_once = 1
    with mock.patch.object(profile, "WARM_UP", 0):
        turns = profile.phases(program, [x], rounds=2)  # one image after another
        fake.log.clear()
        net = netdsl.compile(FACTOR, "random", device="cuda")
        return (turns, net.phases(x, rounds=1)), fake.log


def test_the_parts_of_a_call_are_timed_apart(virtual: Simulator) -> None:
    (turns, whole), log = virtual.apply(_phases)
    assert turns == Phases(1e-3, 1e-3, 1e-3) and whole == Phases(0.5e-3, 0.5e-3, 0.5e-3)  # half a millisecond each
    order = [entry.split()[0] for entry in log if entry.startswith(("cuEventRecord", "graph"))]
    # before and after sending a piece, the sending's own; after the steps; that of the piece fetched, after fetching
    assert order == ["cuEventRecord"] * 3 + ["graph"] + ["cuEventRecord"] * 3


def _bench(folder: str) -> tuple[int, str, str]:
    import contextlib
    import io

    import virtual_driver

    virtual_driver.install()
    from netdsl import benchmark, lowerings
    from netdsl.backends.cuda import profile
    from netdsl.cli import app

    source = Path(folder, "factor.net")
    source.write_text(FACTOR)
    told = ["bench", source, "--device", "reference,cuda", "--batch", "1,2", "--rounds", "1", "--json", "--plot"]
    quick = [
        mock.patch.object(lowerings, "start", lambda *_: lowerings.Start(2.0, 0.5)),
        mock.patch.object(benchmark, "WARM_UP", 0),
        mock.patch.object(profile, "WARM_UP", 0),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ]
    with contextlib.ExitStack() as stack:
        *_, out, err = map(stack.enter_context, quick)
        status = app.run([*map(str, told), str(Path(folder, "out.svg"))])
    return status, out.getvalue(), err.getvalue()


def test_both_lowerings_side_by_side(virtual: Simulator, tmp_path: Path) -> None:
    status, out, err = virtual.apply(_bench, str(tmp_path))
    assert status == 0, err
    told = json.loads(out)
    (found,) = told["side_by_side"]
    assert told["machine"]["gpu"]["card"] == "a virtual card" and found["starts"]["cuda"]["cold"] == 2.0
    assert found["devices"]["cuda"].startswith("a virtual card (compute capability 9.0")
    kinds = [(r["batch"], r["device"], r["phases"]) for r in found["runs"]]
    parts = {"to_device": 0.5e-3, "compute": 0.5e-3, "from_device": 0.5e-3}
    assert kinds == [(1, "reference", None), (1, "cuda", parts), (2, "reference", None), (2, "cuda", parts)]
    assert all(0 <= r["difference"] < 1e-5 and r["images_per_second"] > 0 for r in found["runs"])
    assert (tmp_path / "out.svg").read_text().startswith("<svg")


def _replayed() -> tuple[list[str], int]:
    fake, _ = _program(FACTOR)
    import netdsl
    from cuda_peers import own_call

    model = netdsl.compile(FACTOR, "random", device="cuda")
    call = own_call(model, [np.ones((2, 3), np.float32)])
    fake.log.clear()
    call()
    return list(fake.log), len(model._program.plan(2).steps)


def test_a_call_that_is_compared_with_pytorch_is_one_graph(virtual: Simulator) -> None:
    log, steps = virtual.apply(_replayed)
    assert log == [f"graph of {steps}", "cuStreamSynchronize"]


def _memory(x: np.ndarray) -> tuple[tuple[int, int], tuple[int, int], str]:
    fake, program = _program()
    from netdsl.errors import DeviceError

    program([x])
    used = len(fake.card.blocks), len(fake.locked)
    said = ""
    fake.cuMemGetInfo = lambda: (0, 0, 0)
    try:
        program([np.concatenate([x] * 4)])
    except DeviceError as error:
        said = error.render()
    del program
    gc.collect()
    return used, (len(fake.card.blocks), len(fake.locked)), said


def test_memory_is_given_back_and_its_lack_is_said(virtual: Simulator) -> None:
    used, left, said = virtual.apply(_memory, case()[1])
    assert used[0] > 0 and used[1] == 4 and left == (0, 0)  # two pieces for batches of 1 and of 2
    assert "error[cuda-memory]: not enough GPU memory for" in said


def _old_card(precision: str) -> str:
    import virtual_driver

    from netdsl.backends.cuda import program as cuda
    from netdsl.errors import DeviceError

    virtual_driver.install(capability=(7, 5))
    try:
        cuda.lower(build(TEXT), random_weights(build(TEXT), 1), precision=precision)
    except DeviceError as error:
        return error.render()
    return "runs"


def test_an_old_card_has_no_tensor_cores_to_ask_for(virtual: Simulator) -> None:
    said = virtual.apply(_old_card, "tf32")
    assert "error[cuda-precision]: precision tf32 needs a GPU of compute capability 8.0 or later" in said
    assert virtual.apply(_old_card, "float32") == "runs"


def _profile(x: np.ndarray) -> Any:
    _, program = _program()
    from netdsl.backends.cuda import profile
    from netdsl.profiles import Roof

    roof = Roof(1, 1e12, 1e12, "a virtual card")
    with mock.patch.multiple(profile, WARM_UP=0, REPEATS=1, roof=lambda precision: roof):
        return profile.profile(program, [x], rounds=1)


def test_a_profile_has_every_step(virtual: Simulator) -> None:
    graph, x, _ = case()
    found = virtual.apply(_profile, x)
    assert found.macs == len(x) * graph.macs and found.seconds == 0.5e-3
    assert sum(step.share for step in found) == pytest.approx(1)
    assert [step.op for step in found if step.macs] == ["conv", "conv", "dense"]
    assert "measured of a virtual card" in str(found)


def _products(precision: str) -> tuple[np.ndarray, int]:
    import virtual_driver

    virtual_driver.install()
    from netdsl.backends.cuda import device
    from netdsl.backends.cuda.kernels.measure import TILES
    from netdsl.backends.cuda.steps import Kernel, block_each

    runtime = device.runtime()
    given, kinds = {"out": runtime.empty(32), "steps": 3}, {"out": "float32[]", "steps": "int64"}
    kernel = Kernel("measure", "tensor_products", (precision,))
    stream, found = runtime.Stream(), np.empty(32, np.float32)
    runtime.Launch(kernel, kinds, block_each(1, 32), given, (9, 0))(stream)
    stream.fetch(given["out"], found)
    return found, TILES


def test_the_tensor_cores_peak_is_that_of_true_products(virtual: Simulator) -> None:
    """All that a warp adds up in tf32 is so many times the sum of one 16x8 by 8x8 product."""
    found, tiles = virtual.apply(_products, "tf32")
    lane = np.arange(32)
    factors = (lane & 7) * np.float32(0.999), (lane & 3) + 0.5
    left = np.array([[factors[0][row % 8 * 4 + depth % 4] for depth in range(8)] for row in range(16)])
    right = np.array([[factors[1][column * 4 + depth % 4] for column in range(8)] for depth in range(8)])
    assert found.sum() == pytest.approx(3 * tiles * (left @ right).sum(), rel=1e-3)


def _roofs() -> tuple[list[Any], list[Any]]:
    import virtual_driver

    virtual_driver.install()
    from netdsl.backends.cuda import profile

    asked: list[Any] = []

    def best(kernel: Any, geometry: Any, values: Any) -> float:
        asked.append((kernel.name, geometry.grid[0], geometry.threads, values.get("steps")))
        return 0.5

    with mock.patch.multiple(profile, _best=best, COPIED_FLOATS=1 << 10):
        return [profile.roof.__wrapped__(precision) for precision in ("float32", "tf32", "float16")], asked


def test_a_roof_counts_what_its_kernels_do(virtual: Simulator) -> None:
    roofs, asked = virtual.apply(_roofs)
    names = [name for name, *_ in asked]
    assert names == ["multiply_adds", "copy", "tensor_products_tf32", "copy", "tensor_products_float16", "copy"]
    _, blocks, threads, steps = asked[0]
    fma = 2 * 8 * blocks * threads * steps / 0.5  # eight chains a thread
    assert [r.flops for r in roofs] == [fma, 16 * 8 * 8 / 32 * fma, 16 * 8 * 16 / 32 * fma]  # of eight tiles a warp
    assert {r.bandwidth for r in roofs} == {8 * 1024 / 0.5}


class Foreign:
    """An array of another library: some memory of the card under the CUDA array interface."""

    def __init__(self, values: np.ndarray, **facts: Any) -> None:
        from netdsl.backends.cuda import device

        self.memory = device.runtime().upload(values)
        self.__cuda_array_interface__ = {
            "shape": values.shape, "typestr": values.dtype.str, "data": (self.memory.address, True), "version": 3,
        } | facts  # fmt: skip


def _foreign(x: np.ndarray) -> tuple[Any, ...]:
    fake, _ = _program()
    import netdsl

    net = netdsl.compile(TEXT, random_weights(build(TEXT), 1), device="cuda")
    whole = tuple(np.cumprod((4, *x.shape[:0:-1]))[::-1].tolist())
    y = net(Foreign(x))
    again = net(Foreign(x, strides=whole, stream=7))
    waited = fake.log.count("cuStreamSynchronize")
    said = []
    for wrong in (Foreign(x.astype(np.float64)), Foreign(x, strides=whole[::-1]), Foreign(x[0])):
        try:
            net(wrong)
        except netdsl.NetError as error:
            said.append(error.render())
    chained = netdsl.compile("netdsl 1\nnet head {\n input v 3\n scale\n}\n", "random", device="cuda")(y)
    return type(y).__name__, y.numpy(), np.asarray(again), waited, said, chained.shape, net.device_name


def test_arrays_of_other_libraries_are_read_where_they_lie(virtual: Simulator) -> None:
    _, x, expected = case()
    kind, first, again, waited, said, chained, name = virtual.apply(_foreign, x)
    np.testing.assert_allclose(first, expected, atol=1e-5)
    assert kind == "DeviceTensor" and np.array_equal(first, again) and chained == (2, 3)
    assert waited == 3 and "a virtual card" in name  # one for each call, one for the stream that is named
    assert "must be contiguous float32, found float64" in said[0] and "x.float().contiguous()" in said[0]
    assert "must be contiguous float32, found float32 with strides" in said[1]
    assert "must be [N, 3, 6, 5], found [3, 6, 5]" in said[2]


def _packed() -> tuple[Any, Any]:
    import virtual_driver

    virtual_driver.install()
    from netdsl.backends.cuda.driver import Array, packed

    array = Array(64, 5, np.dtype(np.float32), None)
    values = {"a": 1.5, "n": 2**40, "k": -3, "w": array[1:3]}
    return packed(("w", "a", "port", "n", "k"), ("float32[]", "float32", "float32[]", "int64", "int32"), values)


def test_arguments_are_packed_word_by_word(virtual: Simulator) -> None:
    words, places = virtual.apply(_packed)
    one_and_a_half = 0x3FC00000
    assert words.tolist() == [0, 0, 2, 4, 68, 2, 4, one_and_a_half, *[0] * 7, 2**40, -3]
    assert places == {"w": 0, "a": 7, "port": 8, "n": 15, "k": 16}
