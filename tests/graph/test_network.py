"""What belongs to a net: inputs, their preprocessing, parameters, facts, weights and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph.texts import built, codes, net
from netdsl.errors import InputError, SourceError
from netdsl.graph.build import build, check
from netdsl.graph.ir import Graph, Preprocess


@pytest.mark.parametrize("given", [3, "classes=3", [("classes", 3)]])
@pytest.mark.parametrize("what", ["params", "input_shapes"])
def test_parameters_and_shapes_come_by_name(what: str, given: Any) -> None:
    with pytest.raises(InputError, match=f"{what} must be a mapping"):
        build("lenet5", **{what: given})


# ---- inputs


def inputs(line: str, body: str = "relu") -> Graph:
    return build(f"netdsl 1\nnet n {{\n  input {line}\n  {body}\n}}\n")


@pytest.mark.parametrize(
    ("line", "shape", "free"),
    [
        ("x 3x224x112", (3, 224, 112), (False, False)),
        ("x (1, 2 * 4, 9)", (1, 8, 9), (False, False)),
        ("x 100", (100,), (False, False)),
        ("x (50 + 50)", (100,), (False, False)),
        ("x size=3x8x8", (3, 8, 8), (False, False)),
        ("x 3x?x?", (3, 256, 256), (True, True)),
        ("x 3x64x?", (3, 64, 256), (False, True)),
    ],
)
def test_sizes(line: str, shape: tuple[int, ...], free: tuple[bool, bool]) -> None:
    (spec,) = inputs(line).inputs
    assert spec.type.shape == shape and spec.free == free


@pytest.mark.parametrize(
    "size", ["3x8", "3x8x8x8", "?x8x8", "0x8x8", "3x0x8", "yes", "(1, 2)", "(3, 8.5, 8)", "2.5", "name"]
)
def test_wrong_sizes(size: str) -> None:
    with pytest.raises(SourceError) as caught:
        inputs(f"x {size}")
    assert [d.code for d in caught.value.diagnostics] == ["input-size"]


def test_preprocessing() -> None:
    line = "x 3x224x224 resize=256 crop=224 range=(-1, 1) mean=(0.5, 1/2, .5) std=2 order=bgr interpolation=bicubic"
    assert inputs(line).inputs[0].preprocess == Preprocess(
        256, (224, 224), (-1.0, 1.0), (0.5, 0.5, 0.5), (2.0,), "bgr", "bicubic"
    )
    assert inputs("x 3x8x9 resize=20x30 crop=8x9").inputs[0].preprocess == Preprocess((20, 30), (8, 9))
    assert inputs("x 1x8x8 grey=yes").inputs[0].preprocess == inputs("x 1x8x8").inputs[0].preprocess == Preprocess()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("reszie=3", "unknown-option"), ("resize=0", "bad-argument"), ("crop=same", "bad-argument"),
        ("range=3", "bad-argument"), ("range=(1, 1)", "bad-argument"), ("mean=yes", "bad-argument"),
        ("mean=(1, 2)", "input-option"), ("std=(1, 2, 0)", "bad-argument"), ("std=(1, 2, 3, 4)", "input-option"),
        ("order=gbr", "bad-argument"), ("grey=yes", "input-option"), ("interpolation=linear", "bad-argument"),
        ("labels=names", "bad-argument"), ('labels="none.txt"', "labels-path"),
        ("resize=3 resize=4", "duplicate-argument"),
        ("4", "too-many-arguments"), ("crop=9", "input-option"), ("crop=8x9", "input-option"),
    ],
)  # fmt: skip
def test_wrong_options(options: str, code: str) -> None:
    with pytest.raises(SourceError) as caught:
        inputs(f"x 3x8x8 {options}")
    assert [d.code for d in caught.value.diagnostics] == [code]


def test_a_crop_for_free_sides_may_be_any() -> None:
    assert inputs("x 3x?x? crop=9").inputs[0].preprocess.crop == (9, 9)


def test_a_vector_is_no_picture() -> None:
    with pytest.raises(SourceError) as caught:
        inputs("x 10 mean=0.5", "dense 3")
    assert caught.value.code == "input-option"


def test_shapes_from_outside() -> None:
    text = net("conv 4 3x3\nexpect out=4x6x6", size="3x?x8")
    with pytest.raises(SourceError, match="expected out=4x6x6, found 4x254x6"):
        build(text)
    graph = build(text, input_shapes={"image": (3, 20, 30)})
    assert str(graph.nodes[-1].type) == "4x18x28" and graph.inputs[0].free == (True, False)
    shape: Any = np.array([3, 9, 9])
    assert str(build(text, input_shapes={"image": shape}).nodes[-1].type) == "4x7x7"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"imag": (3, 8, 8)}, "no input `imag`"),
        ({"image": (8, 8)}, "3 dimensions"),
        ({"image": (3, 0, 8)}, "positive whole numbers"),
        ({"image": (3, 8.5, 8)}, "positive whole numbers"),
        ({"image": 3}, "positive whole numbers"),
        ({"image": (3, 2**70, 8)}, "positive whole numbers"),
    ],
)
def test_wrong_shapes_from_outside(shapes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(net("relu"), input_shapes=shapes)
    assert caught.value.code == "input-shape"


def test_too_large_a_shape_from_outside() -> None:
    with pytest.raises(SourceError, match="the input would be 3x1000000x1000000"):
        build(net("relu"), input_shapes={"image": (3, 10**6, 10**6)})


# ---- parameters


def test_parameters() -> None:
    text = net("flatten | dense classes\nexpect out=10", params="classes=10, how=nearest, wide=classes * 2")
    graph = build(text)
    assert dict(graph.arguments) == {"classes": 10, "how": "nearest", "wide": 20}
    graph = build(text, params={"classes": np.int64(7), "how": "bilinear", "wide": 1.5})
    assert dict(graph.arguments) == {"classes": 7, "how": "bilinear", "wide": 1.5}
    assert str(graph.nodes[-1].type) == "7"


def test_a_word_from_outside_reaches_the_layer() -> None:
    text = net("upsample 2 mode=how\nconv 4 kernel", params="how=nearest, kernel=3x3")
    graph = build(text, params={"how": "bilinear", "kernel": [5, 1]})
    assert graph.nodes[1].op.mode == "bilinear"  # type: ignore[attr-defined]
    assert str(graph.nodes[-1].type) == "4x12x16"


@pytest.mark.parametrize(
    ("params", "code"),
    [({"clases": 3}, "unknown-parameter"), ({"classes": None}, "bad-parameter"), ({"classes": 2**63}, "bad-parameter"),
     ({"classes": object()}, "bad-parameter"), ({"classes": float("nan")}, "bad-parameter"),
     ({"classes": np.float32("inf")}, "bad-parameter")],
)  # fmt: skip
def test_wrong_parameters_from_outside(params: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        build(net("flatten | dense classes", params="classes=10"), params=params)
    assert caught.value.code == code


def test_a_parameter_that_suits_no_layer() -> None:
    with pytest.raises(SourceError, match="dense: features must be a positive whole number, found -3"):
        build(net("flatten | dense classes", params="classes=10"), params={"classes": -3})


# ---- facts


@pytest.mark.parametrize(
    "fact", ["out=4x6x6", "params=112", "macs=3_888", "out=4x6x6 params=4*27+4", "out=(4, in.h, in.w)"]
)
def test_facts_that_hold(fact: str) -> None:
    assert codes(f"conv 4 3x3\nexpect {fact.replace('4*27+4', '(4 * 27 + 4)')}") == []


def test_facts_of_several_outputs() -> None:
    body = "conv 4 3x3\noutput small\nflatten\noutput flat\nexpect small=4x6x6 flat=144"
    assert codes(body) == []
    assert codes(body + " out=144") == ["expect"]


@pytest.mark.parametrize("fact", ["out=4x6x7", "out=144", "params=111", "macs=1", "outs=3", "params"])
def test_facts_that_do_not_hold(fact: str) -> None:
    assert codes(f"conv 4 3x3\nexpect {fact}") == ["expect"]


def test_facts_are_about_the_written_parameters_and_sizes() -> None:
    text = net("conv c 3x3\nexpect out=4x6x6", params="c=4")
    assert build(text, params={"c": 4}).parameters == 112
    assert build(text, params={"c": 5}).parameters == 140
    assert build(text, input_shapes={"image": (3, 9, 9)}).parameters == 112
    with pytest.raises(SourceError):
        build(text.replace("4x6x6", "4x6x7"), input_shapes={"image": (3, 8, 8)})


# ---- weights


def test_weights_from_an_address() -> None:
    spec = built('weights "https://example.com/a.pth" sha256="0123ABCD"\nrelu').weights
    assert spec is not None and (spec.url, spec.sha256, spec.path) == ("https://example.com/a.pth", "0123abcd", None)


def test_weights_beside_the_text(tmp_path: Path) -> None:
    (tmp_path / "n.net").write_text(net('weights "data/w.npz"\nrelu'))
    spec = build(tmp_path / "n.net").weights
    assert spec is not None and spec.path == str((tmp_path / "data" / "w.npz").resolve()) and spec.url is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("weights file", "weights"), ("weights 3", "weights"), ('weights ""', "weights-path"),
        ('weights "/a.npz"', "weights-path"),
        ('weights "a/../../b.npz"', "weights-path"), ('weights "C:/a.npz"', "weights-path"),
        ('weights "~/a.npz"', "weights-path"),
        ('weights "a\\\\b.npz"', "weights-path"), ('weights "https://example.com/a"', "weights"),
        ('weights "https://example.com/a" sha256="123"', "weights"),
        ('weights "https://example.com/a" sha256=12345678', "weights"),
        ('weights "http://example.com/a" sha256="12345678"', "weights"),
        ('weights "file:///a" sha256="12345678"', "weights"),
        ('weights "ftp://example.com/a" sha256="12345678"', "weights"),
        ('weights "https://" sha256="12345678"', "weights"),
        ('weights "https://[bad/a" sha256="12345678"', "weights"),
        ('weights "https://a b/c" sha256="12345678"', "weights"),
        ('weights "a.npz" sha="12345678"', "unknown-option"), ('weights "a.npz"\nweights "a.npz"', "weights"),
    ],
)  # fmt: skip
def test_wrong_weights(line: str, code: str) -> None:
    assert codes(f"{line}\nrelu") == [code]


# ---- the whole


@pytest.mark.parametrize("line", ["input x 3x8x8", "output x", "expect out=3", 'weights "a.npz"'])
def test_only_a_net_has(line: str) -> None:
    assert codes("b", f"block b {{\n {line}\n relu\n}}") == ["only-in-net"]
    assert codes("relu", f"block b {{\n {line}\n relu\n}}") == ["only-in-net"]


def test_limits_of_a_tensor() -> None:
    assert codes("upsample 4 | upsample 4", size="1x8192x8192") == ["shape"]
    assert codes("flatten | dense 100000", size="3x100x100") == ["shape"]


def test_check_accepts_a_text_of_blocks() -> None:
    blocks = "netdsl 1\nblock b { relu }\n"
    assert check(blocks) is None
    assert check(net("relu")) is not None
    with pytest.raises(SourceError) as caught:
        check("netdsl 1\nblock b { reluu }\n")
    assert caught.value.code == "unknown-layer"
    with pytest.raises(SourceError) as caught:
        build(blocks)
    assert caught.value.code == "no-net"


def test_at_most_fifty_faults_are_shown() -> None:
    with pytest.raises(SourceError) as caught:
        build(net("\n".join(f"from a{i}" for i in range(60))))
    assert len(caught.value.diagnostics) == 51 and caught.value.diagnostics[-1].message == "and 10 more errors"


def test_error_fields() -> None:
    with pytest.raises(SourceError) as caught:
        build(net("conv 4 3x3 strid=2"))
    error = caught.value
    assert (error.code, error.path, error.line, error.column) == ("unknown-option", "<text>", 5, 12)
    assert error.hint == "did you mean `stride`?"
