"""Expressions at compile time."""

from __future__ import annotations

from typing import Any

import pytest

from graph.texts import net
from netdsl.errors import Source, SourceError
from netdsl.graph.build import build
from netdsl.graph.values import Names, evaluate, show
from netdsl.ops.base import Word
from netdsl.tensor import TensorType
from netdsl.text import tree
from netdsl.text.parse import parse

VARIABLES: dict[str, Any] = {"n": 7, "half": 0.5, "on": True, "mode": Word("nearest"), "size": (3, 5)}


def value(text: str) -> Any:
    body = parse(Source("t", f"netdsl 1\nnet n {{\nlet x = {text}\n}}\n")).nets[0].body
    let = body.lines[0][0]
    assert isinstance(let, tree.Let)
    return evaluate(let.value, Names(VARIABLES.get, lambda: list(VARIABLES), TensorType((16, 20, 30))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("7 - 2 - 1", 4), ("-n + 1", -6), ("2 * -n", -14), ("7 // 2", 3),
        ("-7 // 2", -4), ("7 % 3", 1), ("-7 % 3", 2), ("7 / 2", 3.5), ("8 / 2", 4), ("1 / 4 + half", 0.75),
        ("12_000", 12000),
        ("1e3", 1000.0), (".5 * 2", 1.0), ("in.c * in.h * in.w", 9600), ("3x5", (3, 5)),
        ("(1, 2.5, yes)", (1, 2.5, True)),
        ("[[1, 2], [3, 4]]", ((1, 2), (3, 4))), ("size", (3, 5)), ('"text"', "text"), ("word", "word"),
        ("1 < 2", True), ("2 <= 2", True), ("3 > 4", False), ("3 >= 4", False), ("n == 7", True), ("n != 7", False),
        ("n == 7.0", True), ("mode == nearest", True), ("mode != bilinear", True), ("size == (3, 5)", True),
        ("on == yes", True), ("yes and no", False), ("yes or no", True), ("not yes or yes", True),
        ("not (yes or yes)", False),
        ("yes or no and no", True), ("n > 5 and n < 9", True), ("false or true", True), ("no and 1 // 0 == 1", False),
        ("min(3, 1, 2)", 1), ("max(n, 9)", 9), ("abs(-3)", 3), ("floor(2.7)", 2), ("ceil(2.1)", 3), ("round(2.5)", 3),
        ("max(min(n, 5), in.c // 4) * 2", 10), ("9223372036854775807", 2**63 - 1),
    ],
)  # fmt: skip
def test_value(text: str, expected: Any) -> None:
    found = value(text)
    assert found == expected and isinstance(found, type(expected))


def test_words_and_strings_are_told_apart() -> None:
    assert isinstance(value("bilinear"), Word) and not isinstance(value('"bilinear"'), Word)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("1 / 0", "division", "division by zero"),
        ("1 // (n - 7)", "division", "division by zero"),
        ("5 % 0.0", "division", "division by zero"),
        ("9223372036854775807 + 1", "overflow", "9223372036854775808 is too large"),
        ("-9223372036854775807 - 2", "overflow", "too large"),
        ("1e308 * 10", "overflow", "too large for a number"),
        ("round(1e300)", "overflow", "too large"),
        ("1 + yes", "type", "expected a number, found yes"),
        ('1 + "a"', "type", 'expected a number, found "a"'),
        ("1 + 3x3", "type", "expected a number, found 3x3"),
        ("2 * widht", "unknown-name", "there is no value named `widht`"),
        ("-widht", "unknown-name", "there is no value named `widht`"),
        ("not n", "type", "expected yes or no, found 7"),
        ("1 and yes", "type", "expected yes or no, found 1"),
        ("yes and wrong", "unknown-name", "there is no value named `wrong`"),
        ("n == yes", "type", "7 and yes cannot be compared"),
        ("sise != 1", "type", "the word `sise` and 1 cannot be compared"),
        ("n < size", "type", "expected a number, found 3x5"),
        ("in.x", "unknown-name", "`in.x` is no value"),
        ("in", "unknown-name", "`in` is no value"),
        ("n.c", "unknown-name", "`n.c` is no value"),
        ("sqrt(2)", "unknown-function", "there is no function `sqrt`"),
        ("flor(2)", "unknown-function", "there is no function `flor`"),
        ("floor(1, 2)", "type", "floor takes 1 number, found 2"),
        ("min(mode)", "unknown-name", "there is no value named `nearest`"),
        ("3x?", "free-size", "may be `?`"),
    ],
)
def test_fault(text: str, code: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        build(net(f"let n = 7 | let size = 3x5 | let mode = nearest\nlet x = {text}\nrelu"))
    (fault,) = caught.value.diagnostics
    assert fault.code == code and message in fault.message


def test_hints_name_what_is_near() -> None:
    for text, near in (("2 * widt", "width"), ("widt != 1", "width"), ("roud(2)", "round")):
        with pytest.raises(SourceError) as caught:
            build(net(f"let width = 7\nlet x = {text}\nrelu"))
        assert caught.value.hint == f"did you mean `{near}`?"


def test_vectors_have_no_height() -> None:
    with pytest.raises(SourceError, match=r"in\.w needs a map, found a vector of 192"):
        build(net("flatten\ndense in.c\nfrom image | flatten | dense in.w"))


def test_an_unknown_value_is_told_once() -> None:
    with pytest.raises(SourceError) as caught:
        build(net("let a = 1 // 0\nlet b = a + 1\nconv b 3x3\nrepeat b { relu }\nwhen a > 1 { relu }"))
    assert [d.code for d in caught.value.diagnostics] == ["division"]


@pytest.mark.parametrize("name", ["yes", "no", "true", "false", "in"])
def test_reserved_names(name: str) -> None:
    for text in (
        net(f"let {name} = 3\nrelu"),
        net("relu", params=f"{name}=3"),
        net("relu", f"block b({name}) {{ relu }}"),
    ):
        with pytest.raises(SourceError) as caught:
            build(text)
        assert caught.value.code in ("reserved", "syntax")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (True, "yes"), (False, "no"), (3, "3"), (2.5, "2.5"), ((3, 5), "3x5"), ((1, 8, 8), "1x8x8"),
        ((-1, 2), "(-1, 2)"),
        ((1,), "(1)"), ((1.5, 2), "(1.5, 2)"), (Word("same"), "the word `same`"), ("file", '"file"'),
    ],
)  # fmt: skip
def test_show(found: Any, text: str) -> None:
    assert show(found) == text
