"""What articles and textbooks state about convolution, as tests."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from words import make

from netdsl.backends.reference import run
from netdsl.ops import LAYERS
from netdsl.ops.base import Op, Word
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.ops.filter import Filter
from netdsl.tensor import TensorType
from shapes import graph_of, random_params, stored


def weights(op: Op, x: TensorType) -> int:
    """Number of stored values, the bias left out."""
    return int(np.prod(op.params(x)["weight"].shape))


def test_a_1x1_bottleneck_saves_almost_a_factor_of_four() -> None:
    x = TensorType((256, 128, 128))
    direct = make("conv", x, features=512, kernel=(3, 3))
    assert weights(direct, x) == 1_179_648
    squeeze = make("1x1", x, features=64)
    y = squeeze.infer(x)
    expand = make("conv", y, features=512, kernel=(3, 3))
    assert (weights(squeeze, x), weights(expand, y)) == (16_384, 294_912)
    assert weights(squeeze, x) + weights(expand, y) == 311_296


def test_depthwise_6x6x16_gives_4x4x16() -> None:
    x = TensorType((16, 6, 6))
    op = make("depthwise", x, kernel=(3, 3))
    assert op.infer(x) == TensorType((16, 4, 4))
    assert weights(op, x) == 16 * 3 * 3


def test_depthwise_is_one_convolution_for_each_channel() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((1, 16, 6, 6)), rng.standard_normal((16, 1, 3, 3))
    whole = Conv(16, (3, 3), groups=16, bias=False).reference({"weight": w}, x)
    alone = Conv(1, (3, 3), bias=False)
    for c in range(16):
        assert_allclose(whole[:, c : c + 1], alone.reference({"weight": w[c : c + 1]}, x[:, c : c + 1]), atol=1e-12)


def test_separable_is_depthwise_then_pointwise() -> None:
    x = TensorType((16, 6, 6))
    values = {name: option.default for name, option in LAYERS["sepconv"].arguments.items()}
    (first, depthwise), (second, pointwise) = LAYERS["sepconv"].parts
    assert (first, second) == ("depthwise", "pointwise")
    deep = depthwise(x, **values | {"features": 40, "kernel": (3, 3)})
    flat = pointwise(deep.infer(x), **values | {"features": 40, "kernel": (3, 3)})
    assert flat.infer(deep.infer(x)) == TensorType((40, 4, 4))
    assert deep.params(x)["weight"].shape == (16, 1, 3, 3)
    assert flat.params(deep.infer(x))["weight"].shape == (40, 16, 1, 1)


def test_an_even_same_kernel_keeps_the_map() -> None:
    x = TensorType((1, 32, 100))
    op = make("conv", x, features=8, kernel=(4, 4), pad=Word("same"))
    assert op.pad == (1, 1, 2, 2)  # the odd cell at the end
    assert make("conv", x, features=8, kernel=(4, 4), pad=Word("same_lower")).pad == (2, 2, 1, 1)
    rng = np.random.default_rng(2)
    graph = graph_of(op, (x,))
    (y,) = run(graph, stored(random_params(op, (x,), rng)), [rng.standard_normal((16, 1, 32, 100))])
    assert y.shape == (16, 8, 32, 100)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 5))
def test_same_gives_input_over_stride_rounded_up(size: int, kernel: int, stride: int) -> None:
    x = TensorType((2, size, 5))
    for word, pooled in (("conv", False), ("maxpool", True), ("avgpool", True)):
        for rule in ("same", "same_lower"):
            given = {} if pooled else {"features": 3}
            op = make(word, x, kernel=(kernel, 1), stride=(stride, 1), pad=Word(rule), **given)
            assert op.infer(x).shape[1:] == (-(-size // stride), 5)
    enlarged = make("deconv", x, features=3, kernel=(kernel, 1), stride=(stride, 1), pad=Word("same"))
    assert enlarged.infer(x).shape[1:] == (size * stride, 5)


def test_same_transposed_is_the_transpose_of_same() -> None:
    """<conv(x), y> = <x, deconv(y)> for every x and y: what "transposed" means."""
    rng = np.random.default_rng(3)
    for height, kernel, stride in ((8, 3, 2), (9, 4, 3), (6, 1, 2), (10, 5, 1)):
        x = TensorType((3, height, 12))
        down = make("conv", x, features=5, kernel=(kernel, 4), stride=(stride, 2), pad=Word("same"), bias=False)
        small = down.infer(x)
        up = make("deconv", small, features=3, kernel=(kernel, 4), stride=(stride, 2), pad=Word("same"), bias=False)
        weight = rng.standard_normal((5, 3, kernel, 4))
        a, b = rng.standard_normal((1, *x.shape)), rng.standard_normal((1, *small.shape))
        left = np.sum(down.reference({"weight": weight}, a) * b)
        assert height % stride or up.infer(small) == x
        assert_allclose(left, np.sum(a * up.reference({"weight": weight}, b)[:, :, :height]), rtol=1e-9)


def test_transposed_convolution_puts_zeros_between() -> None:
    """2x2 values, stride 2, a kernel of ones: each value appears as its own 2x2 square."""
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    y = Deconv(1, (2, 2), (2, 2), bias=False).reference({"weight": np.ones((1, 1, 2, 2))}, x)
    assert y[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_convolution_known_by_hand() -> None:
    """A vertical edge, found by the Sobel kernel; a network's convolution does not flip it, `flip` does."""
    image = np.array([[[[0.0, 0.0, 1.0, 1.0]] * 3]])
    sobel = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
    assert Filter(sobel).reference({}, image)[0, 0].tolist() == [[4, 4]]
    assert Filter(sobel, flip=True).reference({}, image)[0, 0].tolist() == [[-4, -4]]


def full(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The mathematical convolution with every overlap kept: flipped, padded by kernel - 1."""
    r, s = kernel.shape
    op = Filter(tuple(map(tuple, kernel.tolist())), pad=(r - 1, s - 1, r - 1, s - 1), flip=True)
    return op.reference({}, image[np.newaxis, np.newaxis])[0, 0]


def test_flipped_convolution_is_an_algebra() -> None:
    """Commutative, associative, distributive over addition; the unit impulse is its identity."""
    rng = np.random.default_rng(4)
    a, b, c, d = (rng.standard_normal(size) for size in ((7, 9), (3, 2), (4, 5), (4, 5)))
    assert_allclose(full(a, b), full(b, a), atol=1e-12)
    assert_allclose(full(full(a, b), c), full(a, full(b, c)), atol=1e-12)
    assert_allclose(full(a, c + d), full(a, c) + full(a, d), atol=1e-12)
    assert_allclose(full(a, np.ones((1, 1))), a, atol=0)


def test_without_flipping_it_does_not_commute() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    one = Filter(tuple(map(tuple, b.tolist())), pad=(2, 2, 2, 2)).reference({}, a[None, None])
    other = Filter(tuple(map(tuple, a.tolist())), pad=(2, 2, 2, 2)).reference({}, b[None, None])
    assert np.abs(one - other).max() > 0.1
    assert_allclose(one, other[:, :, ::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 3)])
def test_identity_kernel_leaves_the_image(size: tuple[int, int]) -> None:
    impulse = np.zeros(size)
    impulse[size[0] // 2, size[1] // 2] = 1
    image = np.random.default_rng(6).standard_normal((2, 3, 6, 7))
    op = make("kernel", TensorType((3, 6, 7)), kernel=tuple(map(tuple, impulse.tolist())), pad=Word("same"))
    assert np.array_equal(op.reference({}, image), image)
