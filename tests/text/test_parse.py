"""Text to tree: what is read, where it stands, and how reading goes on behind a mistake."""

from __future__ import annotations

import pytest

from netdsl.errors import Source, SourceError
from netdsl.text import tree
from netdsl.text.parse import MAX_NESTING, MAX_WORDS, parse, parse_tolerant
from netdsl.text.tree import MAX_BYTES


def read(body: str) -> tree.Body:
    """The body of a net that consists of the given lines."""
    return parse(Source("test.net", f"netdsl 1\nnet n {{\n{body}\n}}\n")).nets[0].body


def first(body: str) -> tree.Statement:
    return read(body).lines[0][0]


def text(span: object) -> str:
    assert hasattr(span, "source")
    return span.source.text[span.start : span.end]


def codes(body: str) -> list[tuple[str, int]]:
    """Code and line (1 is the first of the body) of each syntax error."""
    _, faults = parse_tolerant(Source("test.net", f"netdsl 1\nnet n {{\n{body}\n}}\n"))
    return [(f.code, f.span.line - 2) for f in faults]


def test_declarations() -> None:
    file = parse(Source("t", 'netdsl 1\nuse "a/b.net" (c, d)\nblock e(f, g=2) { relu }\nnet h { tanh }'))
    assert [(u.path.value, [n.text for n in u.names]) for u in file.uses] == [("a/b.net", ["c", "d"])]
    assert [(p.name, p.default is None) for p in file.blocks[0].parameters] == [("f", True), ("g", False)]
    assert file.nets[0].name == "h" and not file.broken


def test_line_break_and_pipe_separate_statements() -> None:
    body = read("relu | tanh\n\n  # nothing\nsilu |\n  gelu # more")
    words = [[s.word for s in line if isinstance(s, tree.Call)] for line in body.lines]
    assert words == [["relu", "tanh"], ["silu", "gelu"]]


def test_call_with_every_kind_of_argument() -> None:
    call = first('conv 11_689 1e-3 .5 7x7 word in.c "text" (1, 2) [[1], [2]] key=-3 other=(a + b)')
    assert isinstance(call, tree.Call)
    kinds = [type(a.value).__name__ for a in call.arguments]
    assert kinds == [
        "Literal",
        "Literal",
        "Literal",
        "Size",
        "Name",
        "Name",
        "Literal",
        "Items",
        "Items",
        "Unary",
        "Chain",
    ]
    assert [a.value.value for a in call.arguments if isinstance(a.value, tree.Literal)] == [11689, 1e-3, 0.5, "text"]
    assert [a.key for a in call.arguments][-2:] == ["key", "other"]


def test_size_can_be_the_word_of_a_layer() -> None:
    call = first("1x1 64")
    assert isinstance(call, tree.Call) and call.word == "1x1"


def test_layers_are_ordinary_words() -> None:
    """Words of the language are words only where they can stand."""
    call = first("conv mode=add from=concat in.c")
    assert isinstance(call, tree.Call)
    assert [a.value.text for a in call.arguments if isinstance(a.value, tree.Name)] == ["add", "concat", "in.c"]


def test_spans_cover_what_is_written() -> None:
    labelled = first("conv1: conv 64 7x7 stride=(2, 2)")
    assert isinstance(labelled, tree.Labelled) and isinstance(labelled.statement, tree.Call)
    assert text(labelled.label.span) == "conv1"
    assert text(labelled.statement.span) == "conv 64 7x7 stride=(2, 2)"
    assert [text(a.span) for a in labelled.statement.arguments] == ["64", "7x7", "stride=(2, 2)"]


def test_strength_of_operators() -> None:
    let = first("let x = 1 + 2 * 3 - 4 // 5 == 6 or not a and b < 2")
    assert isinstance(let, tree.Let) and isinstance(let.value, tree.Chain)
    assert [o for o, _ in let.value.rest] == ["or"]
    assert isinstance(let.value.first, tree.Chain) and let.value.first.rest[0][0] == "=="
    left = let.value.first.first
    assert isinstance(left, tree.Chain) and [o for o, _ in left.rest] == ["+", "-"]


@pytest.mark.parametrize("word", ["denselayer{i}", "a{i}b{j + 1}", "enc{5 - i}", "x{2 * (i + 1)}_y"])
def test_templates(word: str) -> None:
    labelled = first(f"{word}: relu")
    assert isinstance(labelled, tree.Labelled)
    parts = [p if isinstance(p, str) else text(p.span) for p in labelled.label.parts]
    assert "".join(parts) == word.replace("{", "").replace("}", "")


def test_braces_may_touch_words() -> None:
    assert isinstance(first("residual{relu}skip{tanh}"), tree.Residual)
    assert isinstance(first("when n{relu}else{tanh}"), tree.When)
    assert isinstance(first("repeat n{relu}"), tree.Repeat)
    assert isinstance(first("branches add{relu\ntanh}"), tree.Branches)


def test_when_chain_is_flat() -> None:
    when = first("when a { x } else when b { y } else when c { z } else { w }")
    assert isinstance(when, tree.When)
    assert [test is None for test, _ in when.arms] == [False, False, False, True]


def test_brackets_may_span_lines() -> None:
    call = first("kernel [[1, 2],\n  # a row\n  [3, 4]\n  ] pad=(\n 1,\n 1\n)")
    assert isinstance(call, tree.Call) and len(call.arguments) == 2


def test_unusual_line_ends_and_marks() -> None:
    from netdsl.graph.library import clean

    plain = "netdsl 1\nnet n {\n relu\n}\n"
    assert clean("\ufeff" + plain.replace("\n", "\r\n")) == clean(plain.replace("\n", "\r")) == plain


def test_all_syntax_errors_are_found() -> None:
    assert codes("conv stride=\nrelu\nwhen a = 3 { relu }\nlet x\nrelu | $ | tanh\n) b\nfrom") == [
        ("syntax", 1), ("syntax", 3), ("syntax", 4), ("character", 5), ("syntax", 6), ("syntax", 7),
    ]  # fmt: skip


def test_errors_inside_a_broken_structure_are_found() -> None:
    assert codes("residul {\n  conv stride=\n} skip down {\n  let x\n}\nrelu") == [
        ("syntax", 1), ("syntax", 2), ("syntax", 4),
    ]  # fmt: skip


def test_a_broken_line_keeps_its_label_and_neighbours() -> None:
    file, faults = parse_tolerant(Source("t", "netdsl 1\nnet n {\n a: relu | b: conv stride= | c: tanh\n}\n"))
    line = file.nets[0].body.lines[0]
    assert len(faults) == 1
    assert [s.label.parts for s in line if isinstance(s, tree.Labelled)] == [("a",), ("b",), ("c",)]
    assert isinstance(line[1], tree.Labelled) and isinstance(line[1].statement, tree.Broken)


def test_braces_are_repaired() -> None:
    for body in ("repeat 2 {\n relu", "relu\n}", "residual { relu } }"):
        file, faults = parse_tolerant(Source("t", f"netdsl 1\nnet n {{\n{body}\n}}\n"))
        assert [f.code for f in faults] == ["brace"], body
        assert len(file.nets) == 1


def test_head_line() -> None:
    for head, code in (
        ("", "head"),
        ("netdsl", "head"),
        ("netdsl 2", "version"),
        ("netdsl x", "head"),
        ("net 1", "head"),
    ):
        _, faults = parse_tolerant(Source("t", f"{head}\nnet n {{\n relu\n}}\n"))
        assert code in [f.code for f in faults], head
    assert parse(Source("t", "\n # first\n\n netdsl 1 # last\nnet n { relu }\n")).nets


def test_limits() -> None:
    for text_, code in (
        ("netdsl 1\n" + "#" * MAX_BYTES, "too-long"),
        ("netdsl 1\nnet n {\n" + "relu\n" * MAX_WORDS + "}", "too-long"),
        ("netdsl 1\nnet n " + "{" * (MAX_NESTING + 1) + "}" * (MAX_NESTING + 1), "nesting"),
    ):
        with pytest.raises(SourceError) as caught:
            parse(Source("t", text_))
        assert caught.value.code == code
    deep = MAX_NESTING - 1
    assert parse(Source("t", "netdsl 1\nnet n {" + "{" * deep + "}" * deep + "}\n")).nets
    assert parse(Source("t", "netdsl 1\nnet n { let x = " + "(" * deep + "1" + ")" * deep + "}\n")).nets


def test_words_in_comments_and_strings_are_free() -> None:
    parse(Source("t", 'netdsl 1\n# } ) ] " { ( [\nnet n {\n relu # } {\n weights "a } ( {.npz"\n}\n'))
    parse(
        Source(
            "t", "netdsl 1\nnet n { relu }\n#" + " word" * (MAX_WORDS // 2) + " more" * (MAX_WORDS // 2 - 10000) + "\n"
        )
    )


@pytest.mark.parametrize("number", ["9223372036854775808", "1" + "0" * 5000, "1e999", "3x99999999999999999999"])
def test_numbers_that_are_too_large(number: str) -> None:
    assert codes(f"conv {number}") == [("overflow", 1)]


def test_largest_number_and_leading_zeros() -> None:
    call = first("conv 9223372036854775807 " + "0" * 30 + "7")
    assert isinstance(call, tree.Call)
    assert [a.value.value for a in call.arguments if isinstance(a.value, tree.Literal)] == [2**63 - 1, 7]
