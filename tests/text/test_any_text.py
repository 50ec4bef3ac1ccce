"""Whatever the text: a graph or a NetError, never anything else."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from netdsl.errors import NetError
from netdsl.graph.build import build

VOCABULARY = """netdsl 1 net block use input output expect weights residual skip branches concat add mul from repeat
when else let in and or not yes no min in.c in.h a b a{1} a.b image conv relu dense flatten maxpool batchnorm upsample
kernel 0 1 2 3 64 7x7 3x8x8 3x?x? 1.5 -1 1e9 99999999999999999999 "f.npz" ( ) [ ] { } { } | : = == != < > + - * / // %
, .. stride= pad=1 same global # $ " \\ é"""
STATEMENTS = """conv 8 3x3;a: conv 8 3x3 pad=1;b: relu;repeat 2 {;residual {;branches concat {;};} skip {
when in.c > 3 {;} else {;concat a;from image;let k = 3;conv k kx;unit 4;unit;skip;{;x{k}: relu;output o;expect out=3
flatten | dense 10;maxpool 2x2;add b;c: {;from c.b;conv 4;repeat i in 1..k { l{i}: 1x1 4 };weights "w.npz"
upsample 2 | crop 4x4;groupnorm 2;pad same;when k { relu };mul a b;a: {;from a.b;residual { from a;a: residual {
repeat k { e: tanh };} skip s when k == 3 {"""

WORDS = st.sampled_from([*VOCABULARY.split(), "\0", "\r"])
ENDS = st.sampled_from([" ", " ", " ", "\n", "\n", ""])
LINES = st.sampled_from(STATEMENTS.replace("\n", ";").split(";"))


def _build(text: str) -> None:
    with contextlib.suppress(NetError):
        build(text + "\n")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300))
def test_characters(text: str) -> None:
    _build(text)
    _build("netdsl 1\nnet n {\n input image 3x8x8\n" + text)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(WORDS, ENDS), max_size=60))
def test_words(words: list[tuple[str, str]]) -> None:
    text = "".join(word + end for word, end in words)
    _build("netdsl 1\n" + text)
    _build("netdsl 1\nblock unit(c) {\n conv c 3x3\n}\nnet n {\n input image 3x8x8\n" + text + "\n}\n")


@settings(max_examples=250, deadline=None)
@given(st.lists(LINES, max_size=25))
def test_lines(lines: list[str]) -> None:
    body = "\n".join(lines) + "\n}" * (sum(s.count("{") - s.count("}") for s in lines))
    _build("netdsl 1\nblock unit(c) {\n conv c 3x3 pad=1\n relu\n}\nnet n {\n input image 3x8x8\n" + body + "\n}\n")
