"""Residuals, branches, joins, repeats, conditions, blocks, several inputs and outputs."""

from __future__ import annotations

import sys

import pytest

from graph.texts import built, codes, faults, net, ops, paths, shape
from netdsl.errors import InputError, SourceError
from netdsl.graph.build import build
from netdsl.ops.join import Add

# ---- residual


def test_residual_with_identity() -> None:
    graph = built("residual { conv 3 3x3 pad=1 }")
    join = graph.nodes[-1]
    assert isinstance(join.op, Add) and join.inputs == (1, 0)


def test_residual_with_projection() -> None:
    graph = built("residual { conv 8 3x3 pad=1 stride=2 } skip down { conv 8 1x1 stride=2 | batchnorm }")
    assert [n.path for n in graph][1:] == ["0", "down.0", "down.1", "add"]
    assert graph.nodes[-1].inputs == (1, 3)


@pytest.mark.parametrize(("c", "expected"), [(3, "conv add"), (8, "conv conv add")])
def test_skip_when(c: int, expected: str) -> None:
    body = "residual { conv c 3x3 pad=1 } skip when in.c != c { conv c 1x1 }"
    assert " ".join(ops(body, c=c)) == expected


def test_skip_condition_sees_the_input_of_the_residual() -> None:
    assert ops("residual { conv 9 1x1 | conv 3 1x1 } skip when in.c == 9 { relu }") == ["conv", "conv", "add"]


def test_residual_with_wrong_shapes_names_both() -> None:
    ((code, message),) = faults(net("residual { conv 8 3x3 }"))
    assert code == "join-shapes" and "8x6x6" in message and "3x8x8" in message


def test_nested_residuals() -> None:
    assert ops("residual { residual { relu } | tanh }") == ["relu", "add", "tanh", "add"]


# ---- branches


def test_each_line_is_an_arm() -> None:
    graph = built("branches concat {\n conv 4 1x1 | relu\n { conv 5 1x1 \n relu }\n x: { conv 6 1x1 }\n skip\n}")
    assert str(graph.nodes[-1].type) == "18x8x8"
    assert graph.nodes[-1].inputs == (2, 4, 5, 0)


@pytest.mark.parametrize(("kind", "size"), [("concat", "6x8x8"), ("add", "3x8x8"), ("mul", "3x8x8")])
def test_kinds_of_joins(kind: str, size: str) -> None:
    assert shape(f"branches {kind} {{\n relu\n tanh\n}}") == size


def test_gate() -> None:
    assert ops("branches mul {\n skip\n { avgpool global | 1x1 3 | sigmoid }\n}")[-1] == "mul"


@pytest.mark.parametrize(("on", "size"), [(True, "6x8x8"), (False, "3x8x8")])
def test_an_arm_under_a_condition(on: bool, size: str) -> None:
    assert shape("branches concat {\n relu\n when on { tanh }\n}", on=on) == size


def test_statements_that_make_no_arm() -> None:
    graph = built("branches concat {\n relu\n output raw\n expect out=3x8x8\n}\noutput out")
    assert [(o.name, str(graph.nodes[o.node].type)) for o in graph.outputs] == [("raw", "3x8x8"), ("out", "3x8x8")]


def test_let_and_skip_between_arms() -> None:
    assert shape("branches concat {\n let c = 5\n conv c 1x1\n when yes { skip }\n}") == "8x8x8"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("branches add {\n}", "no-arms"),
        ("branches add {\n when no { relu }\n}", "no-arms"),
        ("branches add {\n relu\n conv 4 1x1\n}", "join-shapes"),
        ("branches concat {\n relu\n maxpool 2x2\n}", "join-shapes"),
        ("branches add {\n relu | skip\n tanh\n}", "skip"),
        ("skip", "skip"),
    ],
)
def test_wrong_branches(body: str, code: str) -> None:
    assert codes(body) == [code]


# ---- joins by label


def test_concat_puts_the_current_tensor_first() -> None:
    graph = built("a: conv 4 1x1\nb: conv 5 1x1\nconv 6 1x1\nconcat b a")
    assert graph.nodes[-1].inputs == (3, 2, 1) and str(graph.nodes[-1].type) == "15x8x8"


def test_u_net() -> None:
    body = """
    repeat i in 1..3 { enc{i}: { conv (8 * i) 3x3 pad=1 | relu } | maxpool 2x2 }
    repeat i in 1..3 {
      let level = 4 - i
      upsample 2
      concat enc{level}
      conv (8 * level) 3x3 pad=1
    }
    """
    assert shape(body) == "8x8x8"


def test_from_goes_on_from_an_earlier_tensor_or_an_input() -> None:
    graph = built("a: relu\nb: tanh\nfrom a\nc: silu\nfrom image\nd: gelu\nconcat b c")
    inputs = {n.path: [graph.nodes[i].path for i in n.inputs] for n in graph}
    assert inputs["c"] == ["a"] and inputs["d"] == ["image"] and inputs["concat"] == ["d", "b", "c"]


def test_a_label_on_a_scope_or_block_means_its_result() -> None:
    graph = built("a: { relu | tanh }\nb: unit\nfrom a\nsilu\nconcat b", "block unit { gelu | gelu }")
    assert [graph.nodes[i].path for i in graph.nodes[-1].inputs] == ["2", "b.1"]


def test_dotted_references_reach_into_scopes() -> None:
    graph = built("enc: { e1: relu | inner: { tanh | e2: silu } | gelu }\nadd enc.e1 enc.inner.e2 enc.inner.0")
    assert [graph.nodes[i].path for i in graph.nodes[-1].inputs] == ["enc.2", "enc.e1", "enc.inner.e2", "enc.inner.0"]


def test_labels_are_looked_for_outward() -> None:
    graph = built("a: relu\nb: { a: tanh\n { silu | add a } }\nadd a")
    joins = [[graph.nodes[i].path for i in n.inputs] for n in graph if n.op.name == "add"]
    assert joins == [["b.1.0", "b.a"], ["b.1.add", "a"]]


def test_a_block_may_join_with_what_its_parameter_names() -> None:
    graph = built("e1: conv 4 1x1\nrelu\nup e1", "block up(other) { concat other }")
    assert [graph.nodes[i].path for i in graph.nodes[-1].inputs] == ["1", "e1"]


@pytest.mark.parametrize(
    "reference", ["from nothing", "concat a b", "from a.b", "add a.0.1", "concat late\nlate: relu"]
)
def test_unknown_labels(reference: str) -> None:
    assert codes(f"a: relu\n{reference}") == ["unknown-label"]


@pytest.mark.parametrize("inside", ["a: { relu | from a }", "a: b", "a: residual { relu | add a }", "a: add a"])
def test_nothing_can_refer_to_itself(inside: str) -> None:
    assert codes(inside, "block b { relu | from a }") == ["unknown-label"]


# ---- repeat and when


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("repeat i in 1..3", ["l1", "l2", "l3"]),
        ("repeat i in 0..0", ["l0"]),
        ("repeat i in n - 1..n", ["l2", "l3"]),
        ("repeat i in (2 * n)..(2 * n + 1)", ["l6", "l7"]),
    ],
)
def test_ranges_include_both_ends(head: str, names: list[str]) -> None:
    assert [n.path for n in built(f"{head} {{ l{{i}}: relu }}", n=3)][1:] == names


@pytest.mark.parametrize("head", ["repeat i in (-m)..m", "repeat m", "repeat i in 1..50_001", "repeat 50_001"])
def test_ranges_that_are_too_long(head: str) -> None:
    assert codes(f"let m = 9223372036854775807\n{head} {{ relu }}") == ["too-large"]


def test_empty_ranges_and_repeats() -> None:
    assert paths("repeat i in 2..1 { relu }\nrepeat 0 { relu }\ntanh") == ["0"]


def test_index_hides_a_variable_only_inside() -> None:
    assert shape("let i = 7\nrepeat i in 1..2 { relu }\nconv i 1x1") == "7x8x8"
    assert codes("repeat i in 1..2 { relu }\nconv i 1x1") == ["bad-argument"]


def test_let_in_a_repeat_goes_on() -> None:
    assert shape("let c = 4\nrepeat 3 { conv c 1x1 | let c = 2 * c }\nconv c 1x1") == "32x8x8"


@pytest.mark.parametrize(("n", "op"), [(1, "relu"), (2, "tanh"), (3, "silu")])
def test_when_else(n: int, op: str) -> None:
    assert ops("when n == 1 { relu } else when n == 2 { tanh } else { silu }", n=n) == [op]


def test_when_in_a_pipeline() -> None:
    assert ops("relu | when no { tanh } | silu") == ["relu", "silu"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("when 1 { relu }", "type"),
        ("when nothing { relu }", "unknown-name"),
        ("repeat 1.5 { relu }", "type"),
        ("repeat nothing { relu }", "type"),
        ("repeat (0 - 1) { relu }", "type"),
        ("repeat i in 1..yes { relu }", "type"),
        ("repeat yes in 1..2 { relu }", "reserved"),
    ],
)
def test_wrong_conditions_and_counts(body: str, code: str) -> None:
    assert codes(body) == [code]


def test_a_doubtful_condition_hides_no_faults_and_makes_none() -> None:
    """Both bodies are checked; labels and values that either defines are unknown, not missing."""
    body = "when wrong > 1 { a: reluu\n let c = 4 } else { a: tanh\n let c = 5 }\nconv c 1x1\nconcat a b\nsilo"
    assert codes(body) == ["unknown-name", "unknown-layer", "unknown-layer"]


# ---- blocks

UNIT = "block unit(c, kernel=3, stride=1, act=yes) {\n conv c kernel stride=stride pad=same\n when act { relu }\n}\n"


@pytest.mark.parametrize(
    ("call", "size"),
    [
        ("unit 4", "4x8x8"),
        ("unit 4 5", "4x8x8"),
        ("unit 4 stride=2", "4x4x4"),
        ("unit c=4 kernel=3x1 stride=2x1", "4x4x8"),
        ("unit 4 act=no", "4x8x8"),
    ],
)
def test_block_arguments(call: str, size: str) -> None:
    assert shape(call, UNIT) == size


def test_defaults_may_use_earlier_parameters_and_the_input() -> None:
    assert shape("b", "block b(c=2 * in.c, d=c + 1) { conv c 1x1 | conv d 1x1 }") == "7x8x8"


def test_arguments_are_evaluated_where_the_call_stands() -> None:
    assert shape("let c = 5\nb (c + in.c)", "block b(c) { conv c 1x1 }") == "8x8x8"


def test_blocks_do_not_see_the_callers_values() -> None:
    assert codes("let c = 5\nb", "block b { conv c 1x1 }") == ["bad-argument"]


def test_words_are_passed_on() -> None:
    assert shape("b bilinear", "block b(how) { upsample 2 mode=how }") == "3x16x16"


def test_blocks_call_blocks() -> None:
    blocks = "block a { b | b }\nblock b { relu }\n"
    assert paths("a", blocks) == ["0.0.0", "0.1.0"]


def test_a_block_may_have_the_name_of_a_layer() -> None:
    assert ops("relu", "block relu { tanh }") == ["tanh"]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("unit", "missing-argument"),
        ("unit 4 3 1 yes 5", "too-many-arguments"),
        ("unit 4 strid=2", "unknown-option"),
        ("unit 4 c=5", "duplicate-argument"),
        ("unit(4, 3)", "brackets"),
        ("unit nothing", "bad-argument"),
        ("unit (1 // 0)", "division"),
    ],
)
def test_wrong_calls(call: str, code: str) -> None:
    assert codes(call, UNIT) == [code]


def test_a_fault_in_a_block_is_told_once_with_the_first_chain() -> None:
    with pytest.raises(SourceError) as caught:
        build(net("a\nb\nb", "block a { b }\nblock b { conv 4 9x9 }\n"))
    (fault,) = caught.value.diagnostics
    assert [call.block for call in fault.chain] == ["a", "b"]


def test_recursion_is_refused() -> None:
    assert codes("a", "block a { b }\nblock b { c }\nblock c { a }\n") == ["recursive-block"]


def test_uncalled_blocks_are_checked() -> None:
    blocks = "block b(c) {\n conv c 3x3 strid=1\n residual { reluu } skip when c > 3 { foo }\n concat e1\n}\n"
    assert codes("relu", blocks) == ["unknown-option", "unknown-layer", "unknown-layer"]


# ---- inputs and outputs

TWO = "netdsl 1\nnet n {{\n  input a 3x8x8\n  let c = 2\n  input b (c, 8, 8)\n{}\n}}\n"


def test_several_inputs() -> None:
    graph = build(TWO.format("  conv 4 1x1\n  concat b"))
    assert [(i.name, str(i.type)) for i in graph.inputs] == [("a", "3x8x8"), ("b", "2x8x8")]
    assert [n.path for n in graph][:2] == ["a", "b"] and str(graph.nodes[-1].type) == "6x8x8"


def test_the_first_input_is_current() -> None:
    assert [graph_.inputs for graph_ in build(TWO.format("relu | concat b"))][2] == (0,)


def test_several_outputs() -> None:
    graph = built("conv 4 1x1\noutput small\nupsample 2\noutput large")
    assert [(o.name, str(graph.nodes[o.node].type)) for o in graph.outputs] == [
        ("small", "4x8x8"),
        ("large", "4x16x16"),
    ]


def test_without_output_the_last_tensor_is_it() -> None:
    graph = built("relu\ntanh")
    assert [(o.name, o.node) for o in graph.outputs] == [("out", 2)]


@pytest.mark.parametrize(
    "body", ["relu\noutput a\ntanh", "a: relu\nfrom image\ntanh", "relu\noutput a\nfrom image\ntanh | silu"]
)
def test_results_that_nothing_uses(body: str) -> None:
    assert codes(body) == ["unused"]


def test_every_fault_at_once() -> None:
    body = "conv 4 3x3 strid=1\nreluu\nflatten\nfrom image\nconv 4 9x9\nfrom image\nconcat b\nfrom image\ndense ten"
    assert codes(body) == ["unknown-option", "unknown-layer", "shape", "unknown-label", "bad-argument"]


# ---- depth


def _deep(levels: int, body: str) -> str:
    """Blocks that call each other in a row, each from inside `body`."""
    blocks = "".join(f"block b{i} {{\n {body.replace('#', f'b{i + 1}')}\n}}\n" for i in range(levels))
    return f"{blocks}block b{levels} {{ relu }}\n"


@pytest.mark.parametrize("body", ["a: #", "a: branches add { x: # }", "when yes { # }", "a: { b: { # } }"])
def test_deep_blocks_end_in_an_error_and_no_deeper(body: str) -> None:
    assert codes("b0", _deep(15, body)) == []
    assert codes("b0", _deep(200, body)) == ["nesting"]


def test_deep_expressions_in_deep_blocks() -> None:
    condition = "(yes and " * 60 + "yes" + ")" * 60
    assert codes("b0", _deep(29, f"when {condition} {{ # }}")) == []


def test_a_caller_that_stands_deep_already() -> None:
    def stand(depth: int) -> list[str]:
        return stand(depth - 1) if depth else codes("b0", _deep(29, "a: branches add { x: # }"))

    with pytest.raises(InputError, match="too deep"):
        stand(sys.getrecursionlimit() - 250)
