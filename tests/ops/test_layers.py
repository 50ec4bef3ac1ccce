"""The layer words: complete, documented, and refusing what makes no sense, with the values in the message."""

import inspect

import pytest
from words import make

from netdsl.graph.build import build
from netdsl.ops import LAYERS, OPERATORS
from netdsl.ops.base import ArgumentFault, ShapeFault, Word
from netdsl.ops.join import Add, Concat, Mul
from netdsl.ops.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool
from netdsl.ops.shape import Crop, Pad
from netdsl.tensor import TensorType

MAP = TensorType((16, 32, 32))
CONTRACT = (
    "conv 1x1 pointwise depthwise sepconv deconv kernel maxpool avgpool lppool batchnorm instancenorm groupnorm lrn "
    "scale dense dropout flatten pad crop upsample pixelshuffle channelshuffle softmax logsoftmax "
    "relu relu6 leaky prelu elu gelu silu hardswish hardsigmoid sigmoid tanh"
)


@pytest.mark.parametrize("word", LAYERS)
def test_every_example_is_right(word: str) -> None:
    """As the list of operators says: it suits a 16x32x32 input."""
    text = f"netdsl 1\nnet example() {{\n  input x 16x32x32\n  {LAYERS[word].example}\n}}\n"
    assert len(build(text).nodes) > 1


def test_the_words_of_the_language() -> None:
    assert set(LAYERS) == set(CONTRACT.split())
    assert LAYERS["pointwise"] is LAYERS["1x1"]


def test_operators_are_listed_once_and_named() -> None:
    assert len(set(OPERATORS)) == len(OPERATORS)
    assert all(op.name for op in OPERATORS)


@pytest.mark.parametrize("word", LAYERS)
def test_every_word_and_option_is_documented(word: str) -> None:
    layer = LAYERS[word]
    assert layer.summary.endswith(".") and layer.example
    for option in layer.arguments.values():
        assert option.doc and option.kind.expected
        assert not (option.required and option.default is not None)


@pytest.mark.parametrize("word", LAYERS)
def test_defaults_are_stated_once(word: str) -> None:
    """Makers take every argument of their layer and give no default of their own."""
    for _, part in LAYERS[word].parts:
        parameters = list(inspect.signature(part).parameters.values())[1:]
        named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert all(p.default is p.empty for p in parameters)
        assert named <= set(LAYERS[word].arguments)
        takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
        assert takes_rest or named == set(LAYERS[word].arguments)


FAULTS = [
    ("conv", MAP, {"features": 8, "kernel": (3, 3), "groups": 3}, "groups=3 must divide the 16 input channels"),
    ("conv", MAP, {"features": 9, "kernel": (3, 3), "groups": 2}, "groups=2 must divide the 9 output channels"),
    ("conv", TensorType((3, 5, 5)), {"features": 8, "kernel": (7, 7)},
     "a 7x7 window does not fit into 5x5 (with padding 0)"),
    ("conv", TensorType((3, 5, 5)), {"features": 8, "kernel": (3, 3), "dilation": (3, 1), "pad": (0, 0, 1, 0)},
     "a 3x3 window spread to 7x3 by its dilation does not fit into 5x5 (with padding (0,0,1,0))"),
    ("conv", TensorType((10,)), {"features": 8, "kernel": (3, 3)},
     "conv needs a map (channels x height x width), but its input is a vector of 10"),
    ("conv", TensorType((10**6, 4, 4)), {"features": 10**6, "kernel": (1, 1)},
     "the weight 1000000x1000000x1x1 has 1000000000000 elements, more than the limit of 2147483647"),
    ("deconv", MAP, {"features": 4, "kernel": (2, 2), "output_pad": (0, 1)},
     "output_pad=1 must be smaller than the stride 1 or dilation 1"),
    ("deconv", TensorType((3, 1, 1)), {"features": 4, "kernel": (2, 2), "pad": (1, 1)},
     "padding 1 cuts everything away from the 2x2 result"),
    ("maxpool", MAP, {"kernel": (2, 2), "pad": (2, 0)},
     "padding 2x0 must be smaller than the 2x2 window that it serves"),
    ("maxpool", MAP, {"kernel": (10**6, 10**6), "stride": 10**6, "pad": 10**6 - 1}, "the padded map "
     "16x2000030x2000030 has 64001920014400 elements, more than the limit of 2147483647"),
    ("dense", MAP, {"features": 10}, "dense needs a vector, but its input is a 16x32x32 map"),
    ("groupnorm", MAP, {"groups": 5}, "groups=5 must divide the 16 input channels"),
    ("pixelshuffle", MAP, {"factor": 3}, "pixelshuffle 3 needs a multiple of 9 channels, found 16"),
    ("crop", MAP, {"size": (33, 8)}, "cannot cut 33x8 at row 0, column 12 out of a 32x32 map"),
    ("crop", MAP, {"pad": (16, 0)}, "cutting 16x0 from the sides of a 32x32 map leaves nothing"),
    ("pad", MAP, {"amount": 32, "mode": Word("reflect")},
     "reflecting 32 cells needs a map larger than that, found 32x32"),
    ("upsample", MAP, {"scale": 10**5}, "the output 16x3200000x3200000 has 163840000000000 elements, more than the "
     "limit of 2147483647"),
]  # fmt: skip


@pytest.mark.parametrize(("word", "x", "given", "message"), FAULTS, ids=lambda v: v if isinstance(v, str) else None)
def test_shape_faults_carry_their_values(word: str, x: TensorType, given: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeFault) as fault:
        make(word, x, **given).infer(x)
    assert fault.value.message == message


MISUSES = [
    ("maxpool", {"kernel": Word("adaptive")}, "kernel", "adaptive pooling needs the size of its output"),
    ("maxpool", {"kernel": Word("global"), "size": (2, 2)}, "size", "global pooling gives 1x1 and takes no size"),
    ("avgpool", {"kernel": Word("global"), "stride": 2}, "stride", "stride means nothing in global pooling"),
    ("avgpool", {"kernel": 3, "size": 2}, "size", "a second size belongs to adaptive pooling only"),
    ("deconv", {"features": 4, "kernel": 3, "stride": 2, "output_pad": 1, "pad": Word("same")}, "output_pad",
     "output_pad cannot be combined with pad=same"),
    ("pad", {"amount": 1, "value": 2}, "value", "value=2 means nothing in mode=zero"),
    ("crop", {"size": 8, "pad": 1}, "pad", "give either the size that remains or pad, what is cut from each side"),
    ("kernel", {"kernel": ((1e300,),), "divide": 1e-10}, "divide", "divide=1e-10 makes the values too large"),
    ("upsample", {"scale": 2, "corners": True}, "corners", "corners=yes has a meaning in mode=bilinear only"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "given", "option", "message"), MISUSES, ids=lambda v: v if isinstance(v, str) else None
)
def test_arguments_that_contradict_each_other(word: str, given: dict[str, object], option: str, message: str) -> None:
    with pytest.raises(ArgumentFault) as fault:
        make(word, MAP, **given)
    assert (fault.value.option, fault.value.message) == (option, message)


@pytest.mark.parametrize(("word", "option", "value"), [
    ("conv", "features", 0), ("conv", "features", True), ("conv", "kernel", (3, 0)), ("conv", "kernel", (3, 3, 3)),
    ("conv", "kernel", 2.0), ("conv", "pad", -1), ("conv", "pad", (1, 2, 3)), ("conv", "pad", Word("some")),
    ("conv", "pad", "same"), ("conv", "bias", 1), ("dropout", "p", 1.5), ("batchnorm", "eps", 0),
    ("leaky", "slope", "x"),
    ("maxpool", "kernel", Word("all")), ("upsample", "mode", Word("cubic")), ("pad", "amount", (1, 2, 3)),
    ("kernel", "kernel", ((1, 2), (3,))), ("kernel", "kernel", ()), ("kernel", "kernel", ((),)),
    ("kernel", "kernel", 3),
    ("kernel", "kernel", ((True,),)), ("kernel", "kernel", ((float("inf"),),)), ("kernel", "divide", 0),
])  # fmt: skip
def test_values_of_the_wrong_kind(word: str, option: str, value: object) -> None:
    with pytest.raises(ValueError):
        LAYERS[word].arguments[option].kind.convert(value)


def test_pooling_forms() -> None:
    assert make("maxpool", MAP, kernel=3) == MaxPool((3, 3), (3, 3))
    assert make("avgpool", MAP, kernel=2, stride=1, ceil=True) == AvgPool((2, 2), (1, 1), ceil=True)
    assert make("avgpool", MAP, kernel=Word("global")) == AdaptiveAvgPool((1, 1))
    assert make("maxpool", MAP, kernel=Word("adaptive"), size=(6, 7)) == AdaptiveMaxPool((6, 7))


def test_ceil_drops_a_window_that_starts_in_the_padding() -> None:
    x = TensorType((1, 4, 5))
    assert make("maxpool", x, kernel=2, stride=2, pad=1, ceil=True).infer(x).shape == (1, 3, 3)
    assert make("maxpool", x, kernel=3, stride=2, ceil=True).infer(x).shape == (1, 2, 2)
    assert make("maxpool", x, kernel=3, stride=2).infer(x).shape == (1, 1, 2)


def test_crop_and_pad_forms() -> None:
    assert make("crop", MAP, size=(24, 21)) == Crop(4, 5, 24, 21)
    assert make("crop", MAP, pad=(1, 2, 3, 4)) == Crop(1, 2, 28, 26)
    assert make("pad", MAP, amount=(0, 1)) == Pad((0, 1, 0, 1))
    assert make("pad", MAP, channels=(0, 16)).infer(MAP) == TensorType((32, 32, 32))


def test_joins() -> None:
    gate = TensorType((16, 1, 1))
    assert Mul().infer(gate, MAP) == Mul().infer(MAP, gate) == MAP
    assert Concat().infer(MAP, TensorType((3, 32, 32))) == TensorType((19, 32, 32))
    with pytest.raises(ShapeFault, match="add needs tensors of one shape, found 16x32x32 and 16x1x1"):
        Add().infer(MAP, gate)
    with pytest.raises(ShapeFault, match="mul needs tensors of one shape"):
        Mul().infer(MAP, TensorType((1, 32, 32)))
    with pytest.raises(ShapeFault, match="concat needs maps of one height and width, found 16x32x32 and 16x1x1"):
        Concat().infer(MAP, gate)


def test_depthwise_multiplies_channels() -> None:
    op = make("depthwise", MAP, kernel=3, multiplier=2)
    assert op.infer(MAP) == TensorType((32, 30, 30))
    assert op.params(MAP)["weight"].shape == (32, 1, 3, 3)


def test_costs_are_exact_integers() -> None:
    x = TensorType((2**14, 2**8, 2**7))
    op = make("conv", x, features=2**7, kernel=(31, 31), pad=15)
    assert op.macs(x) == 2**7 * 2**8 * 2**7 * 2**14 * 31 * 31
    up = make("deconv", MAP, features=8, kernel=4, stride=2, pad=1)
    assert up.macs(MAP) == 16 * 32 * 32 * 8 * 4 * 4


def test_descriptions() -> None:
    assert make("conv", MAP, features=64, kernel=7, stride=2).describe() == "conv 64 7x7 /2"
    assert make("depthwise", MAP, kernel=(3, 5), stride=(1, 2), dilation=2).describe() == (
        "conv 16 3x5 /1x2 dilation 2 groups 16"
    )
    assert make("avgpool", MAP, kernel=Word("global")).describe() == "avgpool global"
