"""The run time over the driver, on a driver made of Python: packing, recording, arrays that stay, memory given back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from simulated import Simulator, simulator

from netdsl.backends import reference
from netdsl.graph.build import build
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


def _program() -> tuple[Any, Any]:
    import virtual_driver

    from netdsl.backends import cuda

    fake = virtual_driver.install()
    graph = build(TEXT)
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


def _memory(x: np.ndarray) -> tuple[int, int, str]:
    fake, program = _program()
    from netdsl.errors import DeviceError

    program([x])
    used = len(fake.alive)
    said = ""
    fake.cuMemGetInfo = lambda: (0, 0, 0)
    try:
        program([np.concatenate([x] * 4)])
    except DeviceError as error:
        said = error.render()
    del program
    gc.collect()
    return used, len(fake.alive), said


def test_memory_is_given_back_and_its_lack_is_said(virtual: Simulator) -> None:
    used, left, said = virtual.apply(_memory, case()[1])
    assert used > 0 and left == 0
    assert "error[cuda-memory]: not enough GPU memory for" in said


def _old_card(precision: str) -> str:
    import virtual_driver

    from netdsl.backends import cuda
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

    profile.WARM_UP, profile.REPEATS = 0, 1
    profile.roof = lambda: Roof(1, 1e12, 1e12, "a virtual card")
    return profile.profile(program, [x], rounds=1)


def test_a_profile_has_every_step(virtual: Simulator) -> None:
    graph, x, _ = case()
    found = virtual.apply(_profile, x)
    assert found.macs == len(x) * graph.macs and found.seconds == 0.5e-3
    assert sum(step.share for step in found) == pytest.approx(1)
    assert [step.op for step in found if step.macs] == ["conv", "conv", "dense"]
    assert "measured of a virtual card" in str(found)


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
