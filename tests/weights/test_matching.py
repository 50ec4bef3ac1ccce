"""What fits, what does not, and how the difference reads."""

import numpy as np
import pytest
import weight_files as wf

from netdsl.errors import WeightsError
from netdsl.weights import load, match
from netdsl.weights.matching import unused
from netdsl.weights.tensors import Entry


def mismatch(graph, tensors, code="weights-mismatch"):
    with pytest.raises(WeightsError) as caught:
        match(graph, tensors)
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("name", list(wf.every_format(wf.sample())))
def test_files_match(tmp_path, name):
    tensors = wf.sample()
    graph = wf.fitting(tensors)
    found = match(graph, load(wf.write(tmp_path, name, wf.every_format(tensors)[name])))
    assert list(found) == list(graph.tensors)
    for key in found:
        assert found[key].dtype == np.float32 and found[key].flags.c_contiguous
        np.testing.assert_array_equal(found[key], tensors[key])


def test_arrays_of_the_user():
    graph = wf.network({"a.weight": (2, 3), "a.bias": (2,)})
    for dtype in (np.float16, np.float32, np.float64, np.longdouble, ">f4"):
        found = match(graph, {"a.weight": np.ones((3, 2), dtype).T, "a.bias": [0.5, 1.5]})
        assert found["a.weight"].dtype == np.float32 and found["a.weight"].flags.c_contiguous
        np.testing.assert_array_equal(found["a.bias"], [0.5, 1.5])
    same = np.ones((2, 3), np.float32)
    assert match(graph, {"a.weight": same, "a.bias": [0.0, 0.0]})["a.weight"] is same


def test_bfloat16_arrays():
    kind = pytest.importorskip("ml_dtypes").bfloat16
    found = match(wf.network({"a.weight": (2,)}), {"a.weight": np.array([1.5, -2], kind)})
    np.testing.assert_array_equal(found["a.weight"], [1.5, -2])


class Awkward:
    """An array-like that refuses, as a tensor on a GPU does."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ones(2, np.int8), "holds int8 values"),
        ([1, 2], "holds int64 values"),
        ([True, False], "holds bool values"),
        (np.array(["a", "b"]), "holds str"),
        (np.array([1j, 2]), "holds complex128 values"),
        (np.array([None, 1.0]), "holds object values"),
        ([[1.0], [1.0, 2.0]], "cannot be made an array"),
        (Awkward(), "cuda:0"),
    ],
)
def test_wrong_types(value, words):
    error = mismatch(wf.network({"a.weight": (2,)}), {"a.weight": value}, code="weights-dtype")
    assert words in error.message and "a.weight" in error.message


def test_wrong_types_in_a_file(tmp_path):
    path = wf.write(tmp_path, "a.npz", wf.npz_bytes({"a.weight": np.ones(2, np.int64)}))
    error = mismatch(wf.network({"a.weight": (2,)}), load(path), code="weights-dtype")
    assert error.path == str(path) and "quantized" in error.hint


def test_names_that_are_no_text():
    assert "named by text" in mismatch(wf.network({"a.weight": (2,)}), {3: [1.0]}, code="weights-format").message


def test_the_difference_reads_well():
    graph = wf.network({"conv1.weight": (64, 3, 7, 7), "fc.weight": (10, 512), "fc.bias": (10,)})
    tensors = {
        "conv1.weight": np.zeros((64, 1, 7, 7)), "fcc.weight": np.zeros((10, 512)), "fc.bias": np.zeros(10),
        "conv1.bias": np.zeros(64),
    }  # fmt: skip
    error = mismatch(graph, tensors)
    assert error.message == "\n".join([
        "the weights do not fit small: 1 missing, 2 unexpected, 1 of another shape",
        "  missing     fc.weight 10x512   (near: fcc.weight 10x512)",
        "  unexpected  fcc.weight 10x512",
        "  unexpected  conv1.bias 64",
        "  shape       conv1.weight: the network has 64x3x7x7, the file 64x1x7x7",
    ])  # fmt: skip


def test_long_differences_are_shortened():
    graph = wf.network({f"layer{i}.weight": (i + 1,) for i in range(300)})
    message = mismatch(graph, {f"other{i}.weight": np.zeros(i + 1) for i in range(300)}).message
    assert "300 missing, 300 unexpected" in message
    assert message.count("… and 292 more") == 2
    assert len(message.splitlines()) == 1 + 9 + 9


def test_near_names_have_the_same_shape():
    graph = wf.network({"block.conv1.weight": (4, 2)})
    tensors = {"block.conv2.weight": np.zeros((4, 3)), "block.conv_1.weight": np.zeros((4, 2))}
    assert "near: block.conv_1.weight" in mismatch(graph, tensors).message


def test_names_cannot_write_to_the_terminal():
    error = mismatch(wf.network({"a.weight": (2,)}), {"\x1b[2J\n" + "x" * 5000: np.zeros(2), "\ud800": np.zeros(1)})
    assert "\x1b" not in str(error) and len(str(error)) < 1000
    str(error).encode("utf-8")


def test_hints():
    graph = wf.network({"conv1.weight": (2,), "fc.weight": (10,)}, arguments={"classes": 10})
    prefixed = {"backbone.conv1.weight": np.zeros(2), "backbone.fc.weight": np.zeros(10)}
    assert "begin with backbone." in mismatch(graph, prefixed).hint
    other = {"conv1.weight": np.zeros(2), "fc.weight": np.zeros(1000)}
    assert "classes=10" in mismatch(graph, other).hint


def test_parts_that_the_network_lacks_are_left_out():
    graph = wf.network({"conv1.weight": (2,), "layer1.0.weight": (2,)})
    tensors = {
        "conv1.weight": np.zeros(2), "conv1.num_batches_tracked": np.array(3), "layer1.0.weight": np.zeros(2),
        "aux1.conv.weight": np.zeros(5), "aux2.fc.bias": np.array([1, 2]),
    }  # fmt: skip
    assert list(match(graph, tensors)) == ["conv1.weight", "layer1.0.weight"]
    assert unused(graph, tensors) == ["aux1", "aux2"]


def test_weights_of_a_deeper_network_are_refused():
    """ResNet-101 holds every tensor of ResNet-50, in the same shapes, and more in the same stages."""
    graph = wf.network({f"layer3.{i}.weight": (2,) for i in range(6)})
    error = mismatch(graph, {f"layer3.{i}.weight": np.zeros(2) for i in range(23)})
    assert "17 unexpected" in error.message and "missing" not in error.message


def test_a_bias_too_many_is_refused():
    tensors = {"conv1.weight": [0.0, 0.0], "conv1.bias": [1.0]}
    assert "conv1.bias" in mismatch(wf.network({"conv1.weight": (2,)}), tensors).message


def test_names_of_older_densenet_files():
    roles = ["weight", "bias", "running_mean", "running_var"]
    graph = wf.network({f"features.denseblock1.denselayer1.norm1.{role}": (2,) for role in roles})
    old = {f"features.denseblock1.denselayer1.norm.1.{role}": np.full(2, float(i)) for i, role in enumerate(roles)}
    found = match(graph, old)
    assert [float(found[name][0]) for name in graph.tensors] == [0, 1, 2, 3]


def test_only_what_the_network_needs_is_read(tmp_path):
    """A huge tensor under another name costs nothing; one under the right name is refused by its shape."""
    path = wf.write(tmp_path, "a.npz", wf.npz_bytes({"x.w": np.zeros(1 << 20), "a.weight": np.ones(2)}, True))
    tensors = load(path)
    tensors.entries["x.w"] = Entry("float64", (1 << 20,), lambda: pytest.fail("read"))
    np.testing.assert_array_equal(match(wf.network({"a.weight": (2,)}), tensors)["a.weight"], [1, 1])
    assert "of another shape" in mismatch(wf.network({"x.w": (2,), "a.weight": (2,)}), tensors).message
