"""A compiled network in other people's programs: what it takes, many threads, fork, pickle, free sizes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import netdsl
from netdsl.arrays import Port
from netdsl.errors import InputError

ROOT = Path(__file__).parent.parent
DEVICES = ("cpu", "reference")

TWO = """\
netdsl 1
net two() {
  input left 2x5x6
  input right 2x5x6
  from left | conv 3 3x3 pad=1 | low: relu
  output features
  from right | conv 3 3x3 pad=1 | add low
  output total
}
"""
FREE = """\
netdsl 1
net free(wide=3) {
  input image 2x?x?
  conv wide 3x3 pad=1 | relu
}
"""
pytestmark = pytest.mark.filterwarnings("ignore::netdsl.errors.NetWarning")


@pytest.fixture(scope="module", params=DEVICES)
def lenet(request: pytest.FixtureRequest) -> netdsl.Model:
    return netdsl.compile("lenet5", device=request.param)


@pytest.fixture(scope="module", params=DEVICES)
def two(request: pytest.FixtureRequest) -> netdsl.Model:
    return netdsl.compile(TWO, device=request.param)


def pictures(count: int = 3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((count, 1, 32, 32), np.float32)


# ---- what a call takes and gives


@pytest.mark.parametrize("count", [0, 1, 2, 5, 33])
def test_any_batch(lenet: netdsl.Model, count: int) -> None:
    x = pictures(count)
    y = lenet(x)
    assert (y.shape, y.dtype) == ((count, 10), np.float32)
    one_by_one = [lenet(x[i : i + 1]) for i in range(count)]
    np.testing.assert_allclose(y, np.concatenate([np.empty((0, 10)), *one_by_one]), rtol=1e-5, atol=1e-6)


def test_inputs_are_not_written_to_and_outputs_are_new(lenet: netdsl.Model) -> None:
    x = pictures()
    before = x.copy()
    x.flags.writeable = False
    first, second = lenet(x), lenet(x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, second)
    kept = first.copy()
    second[:] = 0
    lenet(pictures(seed=1))
    np.testing.assert_array_equal(first, kept)
    assert first.flags.writeable and first.flags.owndata


class HasDlpack:
    """An array that speaks DLPack only, as other libraries' do."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def misaligned(x: Any) -> Any:
    place = np.zeros(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    place[:] = x
    assert not place.flags.aligned
    return place


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.tolist(),
        lambda x: list(x),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=3)[:, :, :, ::2],
        lambda x: x[:, :, ::-1][:, :, ::-1],
        misaligned,
        HasDlpack,
        memoryview,
        lambda x: np.ma.masked_array(x),
    ],
    ids=["lists", "list of arrays", "float64", "big-endian", "fortran", "strided", "flipped", "misaligned", "dlpack",
         "buffer", "masked"],
)  # fmt: skip
def test_whatever_is_like_an_array_will_do(lenet: netdsl.Model, other: Any) -> None:
    x = pictures(2)
    np.testing.assert_array_equal(lenet(other(x)), lenet(x))


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.bool_, np.float16])
def test_numbers_of_any_real_kind_will_do(lenet: netdsl.Model, kind: Any) -> None:
    x = (pictures(2) * 2).astype(kind)
    np.testing.assert_array_equal(lenet(x), lenet(x.astype(np.float32)))


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        (np.zeros((1, 32, 32)), r"image must be \[N, 1, 32, 32\], found \[1, 32, 32\]", "x[None]"),
        (np.zeros((4, 32, 32)), "found [4, 32, 32]", "x[:, None]"),
        (np.zeros((32, 32)), "found [32, 32]", "x[None, None]"),
        (np.zeros((2, 32, 32, 1)), "found [2, 32, 32, 1]", "x.transpose(0, 3, 1, 2)"),
        (np.zeros((32, 32, 1)), "found [32, 32, 1]", "x.transpose(2, 0, 1)[None]"),
        (np.zeros((1, 3, 32, 32)), "found [1, 3, 32, 32]", None),
        (np.zeros((1, 1, 28, 28)), "found [1, 1, 28, 28]", None),
        (3.0, "found []", None),
        (np.zeros((1, 1, 32, 32), complex), "complex128", "real part"),
        (np.full((1, 1, 32, 32), "a"), "real numbers", None),
        (np.zeros((1, 1, 32, 32), object), "real numbers", None),
        (np.zeros((1, 1, 32, 32), "datetime64[s]"), "real numbers", None),
        ("picture.png", "real numbers", "load_image"),
        (Path("picture.png"), "real numbers", "load_image"),
        (None, "real numbers", None),
        ([[1.0], [1.0, 2.0]], "no array that can be read: list", None),
        ({"image": 1}, "real numbers", None),
    ],
)
def test_wrong_arrays_say_what_was_expected_and_found(
    lenet: netdsl.Model, wrong: Any, message: str, hint: str | None
) -> None:
    with pytest.raises(InputError) as error:
        lenet(wrong)
    assert message.replace("\\", "") in error.value.message
    assert (error.value.hint is None) if hint is None else hint in str(error.value.hint)


class OnDevice:
    """What an array in a GPU's memory answers."""

    __cuda_array_interface__: ClassVar[dict[str, Any]] = {}

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("cannot export a CUDA array to the CPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def test_an_array_on_a_gpu_is_refused_with_the_way_out(lenet: netdsl.Model) -> None:
    with pytest.raises(InputError) as error:
        lenet(OnDevice())
    assert "copy it to the host" in str(error.value.hint)


# ---- several inputs and outputs


def test_inputs_by_order_and_by_name_outputs_by_name(two: netdsl.Model) -> None:
    a, b = np.random.default_rng(0).random((2, 4, 2, 5, 6), np.float32)
    y = two(a, b)
    assert list(y) == ["features", "total"]
    assert all(v.shape == (4, 3, 5, 6) and v.dtype == np.float32 for v in y.values())
    for again in (two(left=a, right=b), two(right=b, left=a), two(a, right=b)):
        np.testing.assert_array_equal(again["total"], y["total"])
    assert not np.array_equal(two(b, a)["features"], y["features"])


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        (0, (), "missing: left, right"),
        (1, (), "missing: right"),
        (3, (), "takes 2 inputs (left, right), found 3"),
        (2, ("left",), "found 3"),
        (1, ("left",), "found 2"),
        (0, ("left", "rihgt"), "no input named rihgt"),
    ],
)
def test_wrong_inputs_by_name(two: netdsl.Model, positional: int, named: tuple[str, ...], message: str) -> None:
    x = np.zeros((1, 2, 5, 6), np.float32)
    with pytest.raises(InputError) as error:
        two(*[x] * positional, **dict.fromkeys(named, x))
    assert message in error.value.message


def test_batches_must_agree(two: netdsl.Model) -> None:
    with pytest.raises(InputError, match="left has 1, right has 2"):
        two(np.zeros((1, 2, 5, 6)), np.zeros((2, 2, 5, 6)))
    assert all(v.shape == (0, 3, 5, 6) for v in two(np.zeros((0, 2, 5, 6)), np.zeros((0, 2, 5, 6))).values())


# ---- what a model says of itself


def test_ports(two: netdsl.Model) -> None:
    assert two.inputs == (Port("left", (None, 2, 5, 6), "float32"), Port("right", (None, 2, 5, 6), "float32"))
    assert [str(p) for p in two.outputs] == ["features [N, 3, 5, 6]", "total [N, 3, 5, 6]"]


def test_free_sizes_are_open_in_the_ports() -> None:
    net = netdsl.compile(FREE, device="reference")
    assert str(net.inputs[0]) == "image [N, 2, ?, ?]"
    assert net.outputs[0].shape == (None, 3, None, None)


def test_summary_and_words(lenet: netdsl.Model) -> None:
    summary = lenet.summary()
    assert summary.parameters == 61_706 == lenet.graph.parameters
    assert [row.path for row in summary][-1] == "fc.fc3"
    assert "61,706" in str(summary)
    assert "<table>" in lenet._repr_html_()
    assert repr(lenet).startswith("<netdsl.Model lenet5: image [N, 1, 32, 32] -> out [N, 10]; ")
    assert not lenet.random_weights and "lenet5.safetensors" in lenet.weights_description
    assert lenet.threads >= 1


# ---- free sizes


@pytest.mark.parametrize("device", DEVICES)
def test_a_free_size_follows_the_data(device: str) -> None:
    net = netdsl.compile(FREE, device=device)
    rng = np.random.default_rng(0)
    whole = rng.random((2, 2, 17, 23), np.float32)
    y = net(whole)
    assert y.shape == (2, 3, 17, 23)
    for height, width in [(5, 5), (5, 9), (17, 23), *((n, 3) for n in range(3, 15)), (5, 5)]:
        part = net(whole[:, :, :height, :width])
        assert part.shape == (2, 3, height, width)
        np.testing.assert_allclose(part[:, :, :-1, :-1], y[:, :, : height - 1, : width - 1], atol=1e-5)
    with pytest.raises(InputError, match=r"must be \[N, 2, \?, \?\]"):
        net(rng.random((1, 3, 5, 5)))
    with pytest.raises(InputError, match="is empty"):
        net(np.zeros((1, 2, 0, 5)))


def test_parameters_hold_for_other_sizes_too() -> None:
    net = netdsl.compile(FREE, params={"wide": 7}, device="reference", inputs={"image": (2, 8, 8)})
    assert net(np.zeros((1, 2, 8, 8))).shape == (1, 7, 8, 8)
    assert net(np.zeros((1, 2, 4, 6))).shape == (1, 7, 4, 6)


def test_words_and_quoted_strings_stay_what_they_are_for_other_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_text("two\n")
    path = tmp_path / "n.net"
    path.write_text('netdsl 1\nnet n(names="a.txt", how=edge) {\n  input x 1x?x? labels=names\n  pad 1 mode=how\n}\n')
    net = netdsl.compile(path, device="reference", params={"names": "b.txt", "how": "reflect"})
    assert str(net.graph.labels).endswith("b.txt")
    y = net(np.arange(9.0).reshape(1, 1, 3, 3))
    assert y[0, 0, 0, 0] == 4.0


def test_a_size_that_needs_other_weights_is_an_error() -> None:
    net = netdsl.compile(FREE.replace("}\n", "  flatten | dense 2\n}\n"), device="reference")
    with pytest.raises(InputError, match="do not fit an input of 2x8x8"):
        net(np.zeros((1, 2, 8, 8)))


def test_a_file_that_changes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "free.net"
    path.write_text(FREE)
    monkeypatch.chdir(tmp_path)
    net = netdsl.compile("free.net", device="reference")
    monkeypatch.chdir("/")
    assert net(np.zeros((1, 2, 8, 8))).shape == (1, 3, 8, 8)
    path.write_text(FREE.replace("3x3", "5x5"))
    with pytest.raises(InputError, match="has changed"):
        net(np.zeros((1, 2, 9, 9)))


# ---- threads, fork, pickle


def test_eight_threads_at_once(lenet: netdsl.Model) -> None:
    batches = [pictures(1 + i % 5, seed=i) for i in range(16)]
    wanted = [lenet(x) for x in batches]
    start = threading.Barrier(8)

    def work(worker: int) -> bool:
        start.wait()
        order = np.random.default_rng(worker).integers(0, len(batches), 60 if lenet.device == "cpu" else 8)
        return all(np.array_equal(lenet(batches[i]), wanted[i]) for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_eight_threads_with_new_sizes() -> None:
    net = netdsl.compile(FREE)
    x = np.random.default_rng(0).random((1, 2, 20, 20), np.float32)
    wanted = {n: net(x[:, :, :n, :n]) for n in range(4, 20)}
    fresh = netdsl.compile(FREE)

    def work(worker: int) -> bool:
        return all(np.array_equal(fresh(x[:, :, :n, :n]), wanted[n]) for n in range(4 + worker % 3, 20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def answer_in_child(net: netdsl.Model, x: Any, pipe: Any) -> None:
    pipe.send(net(x))
    pipe.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_model_survives_fork(lenet: netdsl.Model) -> None:
    x = pictures(4)
    wanted = lenet(x)
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=answer_in_child, args=(lenet, x, theirs))
        child.start()
        theirs.close()
        assert ours.poll(60), "the child gave no answer"
        np.testing.assert_array_equal(ours.recv(), wanted)
        child.join(60)
        assert child.exitcode == 0
    np.testing.assert_array_equal(lenet(x), wanted)


def test_a_model_survives_pickle_and_copy(lenet: netdsl.Model) -> None:
    x = pictures()
    for twin in (pickle.loads(pickle.dumps(lenet)), copy.deepcopy(lenet)):
        np.testing.assert_array_equal(twin(x), lenet(x))
        assert (twin.device, twin.threads) == (lenet.device, lenet.threads)
        assert twin.weights_description == lenet.weights_description


def test_a_pickle_stands_alone_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "free.net"
    path.write_text(FREE)
    net = netdsl.compile(path)
    x = np.random.default_rng(0).random((2, 2, 256, 9), np.float32)[:, :, :, :9]
    with (tmp_path / "model").open("wb") as file:
        pickle.dump((netdsl.compile("lenet5"), net, x), file)
    np.save(tmp_path / "wanted.npy", net(x))
    script = (
        "import pickle, numpy as np\n"
        "lenet, net, x = pickle.load(open('model', 'rb'))\n"
        "assert np.array_equal(net(x), np.load('wanted.npy'))\n"
        "assert lenet(np.zeros((2, 1, 32, 32))).shape == (2, 10)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()


def test_errors_survive_pickle() -> None:
    with pytest.raises(netdsl.SourceError) as error:
        netdsl.build("netdsl 1\nnet n() {\n  input image 1x8x8\n  convv 3\n}\n")
    twin = pickle.loads(pickle.dumps(error.value))
    assert (twin.code, twin.line, twin.render()) == (error.value.code, 4, error.value.render())


def test_threads_do_not_change_the_bits() -> None:
    x = pictures(7)
    one, all_of_them = netdsl.compile("lenet5", threads=1), netdsl.compile("lenet5")
    assert one.threads == 1
    np.testing.assert_array_equal(one(x), all_of_them(x))
