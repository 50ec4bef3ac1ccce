"""Names of layers and weights: labels make dotted paths, what has no label takes its position."""

from __future__ import annotations

import pytest

from graph.texts import codes, net, paths
from netdsl.graph.build import build

BLOCKS = """
block unit(c) {
  conv c 3x3 pad=1
  bn: batchnorm
}
"""


def test_positions_count_every_child() -> None:
    assert paths("conv 3 1x1 | relu\nx: tanh\nsilu") == ["0", "1", "x", "3"]


def test_labels_and_scopes_make_dotted_names() -> None:
    assert paths("features: {\n conv 3 1x1\n act: relu\n}\n{ tanh }") == ["features.0", "features.act", "1.0"]


def test_block_calls_open_scopes() -> None:
    assert paths("unit 3 | a: unit 3 | relu", BLOCKS) == ["0.0", "0.bn", "a.0", "a.bn", "2"]


def test_statements_that_are_no_children_take_no_position() -> None:
    body = "a: relu\nlet c = 3\nfrom a\nconv c 1x1\nadd a\nexpect out=3x8x8\nrelu"
    assert paths(body) == ["a", "1", "add", "2"]


@pytest.mark.parametrize(
    "body",
    [
        "relu | repeat 2 { tanh } | relu",
        "relu | when yes { tanh | tanh } | relu",
        "relu | when no { silu } else { tanh | tanh } | relu",
        "relu | residual { tanh | tanh } | relu",
        "relu | residual { tanh } skip { tanh } | relu",
        "relu | branches add {\n tanh\n tanh\n} | relu",
        "relu | branches add {\n { tanh | tanh }\n skip\n} | relu",
    ],
)
def test_structures_without_label_continue_the_numbering(body: str) -> None:
    assert [p for p in paths(body) if not p.startswith("add")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("r: repeat 2 { tanh }", ["r.0", "r.1"]),
        ("w: when yes { tanh }", ["w.0"]),
        ("r: residual { tanh } skip { silu }", ["r.0", "r.1", "r.add"]),
        ("b: branches concat {\n tanh\n x: relu\n}", ["b.0", "b.x", "b.concat"]),
        ("branches concat {\n a: { tanh | relu }\n b: tanh | relu\n}", ["a.0", "a.1", "b", "2", "concat"]),
        ("residual { tanh } skip down { silu | relu }", ["0", "down.0", "down.1", "add"]),
        ("s: sepconv 4 3x3", ["s.depthwise", "s.pointwise"]),
        ("sepconv 4 3x3", ["0.depthwise", "0.pointwise"]),
    ],
)
def test_labels_on_structures_open_scopes(body: str, names: list[str]) -> None:
    assert paths(body) == names


def test_joins_without_label_are_numbered_apart() -> None:
    body = "a: relu\nadd a\nadd a\nresidual { tanh }\nsum: add a\nmul a"
    assert paths(body) == ["a", "add", "add.2", "1", "add.3", "sum", "mul"]


def test_templates() -> None:
    assert paths("repeat i in 1..3 { l{i}: relu }") == ["l1", "l2", "l3"]
    assert paths("repeat i in 1..2 { repeat j in 0..1 { a{i}b{2 * j}_: relu } }") == [
        "a1b0_",
        "a1b2_",
        "a2b0_",
        "a2b2_",
    ]


def test_weights_are_named_after_the_path_and_the_role() -> None:
    graph = build(net("a: { conv 4 3x3\n batchnorm }"))
    assert list(graph.tensors.items()) == [
        ("a.0.weight", (4, 3, 3, 3)), ("a.0.bias", (4,)), ("a.1.weight", (4,)), ("a.1.bias", (4,)),
        ("a.1.running_mean", (4,)), ("a.1.running_var", (4,)),
    ]  # fmt: skip


def test_names_of_a_residual_network() -> None:
    """The names of torchvision's ResNet-18."""
    names = list(build("resnet18").tensors)
    assert names[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert {"layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var"} <= set(names)
    assert "layer1.0.downsample.0.weight" not in names
    assert names[-2:] == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("a: relu\na: relu", "duplicate-label"),
        ("a: relu\nbranches add {\n a: relu\n tanh\n}", "duplicate-label"),
        ("image: relu", "duplicate-label"),
        ("repeat 2 { a: relu }", "duplicate-label"),
        ("a: { b: relu }\na: { c: relu }", "duplicate-label"),
        ("residual { relu } skip a { tanh }\nresidual { relu } skip a { tanh }", "duplicate-label"),
        ("a{1.5}: relu", "type"),
        ("a{0 - 1}: relu", "type"),
        ("a{yes}: relu", "type"),
        ("a{1}.b: relu", "label"),
        (f"{'a' * 65}: relu", "too-long"),
        ("a: let b = 3\nrelu", "label"),
        ("a: from image\nrelu", "label"),
    ],
)
def test_wrong_labels(body: str, code: str) -> None:
    assert codes(body) == [code]


def test_the_same_label_in_different_scopes() -> None:
    assert paths("a: { x: relu }\nb: { x: relu }\nx: relu") == ["a.x", "b.x", "x"]
