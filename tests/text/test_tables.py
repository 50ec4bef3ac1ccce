"""The parser's tables, kept between processes."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
from lark import Lark, UnexpectedInput

from netdsl import kept
from netdsl.text import tables

GRAMMAR = (importlib.resources.files("netdsl.grammars") / "netdsl.lark").read_text("utf-8")
TEXTS = [
    *sorted(path.read_text("utf-8") for path in Path(__file__).parents[2].glob("networks/**/*.net")),
    "netdsl 1\nnet a {\n conv 3x\n}\n",
    "netdsl 1\nnet a {\n branches concat { a: conv 8 1x1 = }\n}\n",
    "netdsl 1\nnet a {\n enc{i}: conv (1 + 2 * in.c) 3x3 pad=(1, 2, 3, 4) | relu ! \n",
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path))
    return tmp_path


def outcome(parser: Lark, text: str) -> object:
    try:
        return parser.parse(text, start="start")
    except UnexpectedInput as error:
        return error.pos_in_stream, error.interactive_parser.parser_state.position, error.interactive_parser.accepts()


def test_a_kept_parser_is_the_made_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tables.parser(GRAMMAR)
    monkeypatch.setattr(Lark, "__init__", None)  # so that it cannot be made again
    found = tables.parser(GRAMMAR)
    assert len(TEXTS) > 40
    for text in TEXTS:
        assert outcome(found, text) == outcome(made, text)


def test_another_grammar_has_its_own(cache: Path) -> None:
    tables.parser(GRAMMAR)
    assert tables.parser(GRAMMAR.replace('"residual"', '"rest"')).parse(
        "netdsl 1\nnet a { rest { relu } }", start="start"
    )
    assert len(list((cache / "tables").iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"{}", b'{"data": {}, "memo": {}}', b"no JSON", b"[1]", None])
def test_what_cannot_be_used_is_made_anew(cache: Path, content: bytes | None) -> None:
    tables.parser(GRAMMAR)
    (path,) = (cache / "tables").iterdir()
    if content is None:
        path.write_bytes(path.read_bytes()[:1000])
    else:
        kept.write(path, content)
    assert tables.parser(GRAMMAR).parse("netdsl 1\nnet a { relu }", start="start")
    assert b'"memo"' in (kept.read(path) or b"") and len(kept.read(path) or b"") > 10_000


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    (cache / "tables").write_text("no folder")
    assert tables.parser(GRAMMAR).parse("netdsl 1\nnet a { relu }", start="start")
