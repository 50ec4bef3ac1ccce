"""Syntax trees kept between processes: what is read is what was parsed, and only what is parsed now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fresh import in_fresh_process
from netdsl import kept
from netdsl.errors import Source
from netdsl.graph import library
from netdsl.text import known, parse, tree
from netdsl.text.parse import MAX_NESTING, parse_tolerant

TEXTS = {
    **{path.name: path.read_text("utf-8") for path in sorted(library.folder().rglob("*.net"))},
    "expressions": "netdsl 1\nnet a(n=-1.5e-3) {\n let b = 1 + 2 * -n // 3 == 4 and not x or y < 2\n"
    ' enc{b + 1}.x: conv (1, (2), [3, ?x4]) "text" pad=min(b, 2)\n}\n',
    "structure": "netdsl 1\nnet a {\n residual { relu } skip d when in.c != 3 { }\n repeat i in 1..3 { skip }\n"
    " when a { relu } else when b { } else { tanh }\n branches add { a: relu | { tanh } }\n from a\n concat a b\n}\n",
    "deep": "netdsl 1\nnet a {\n" + "a: when 1 == 1 {\n" * (MAX_NESTING // 2 - 1) + "}\n" * (MAX_NESTING // 2),
    "other characters": "netdsl 1\n# é — 網\nnet a {\n relu # \U0001f600\n}\n",
}
PLAIN = Source("some.net", "netdsl 1\nnet a {\n relu\n}\n")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path))
    return tmp_path / "trees"


@pytest.mark.parametrize("name", TEXTS)
def test_a_kept_tree_is_the_parsed_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(name, TEXTS[name])
    parsed = known.syntax_tree(source)
    assert parsed == parse_tolerant(source) and not parsed[1]
    monkeypatch.setattr(parse, "parse_tolerant", None)  # so that it cannot be parsed again
    found, faults = known.syntax_tree(source)
    assert found == parsed[0] and repr(found) == repr(parsed[0]) and not faults


def test_the_places_of_a_kept_tree_are_in_the_text_at_hand() -> None:
    for _ in range(2):
        file, _ = known.syntax_tree(PLAIN)
        assert file.nets[0].span.source is PLAIN and file.nets[0].span.place == "some.net:2:5"


def test_a_file_that_changes_is_parsed_again_and_takes_the_old_ones_place(cache: Path) -> None:
    known.syntax_tree(PLAIN)
    file, _ = known.syntax_tree(Source("some.net", PLAIN.text.replace("relu", "tanh")))
    (line,) = file.nets[0].body.lines
    assert isinstance(line[0], tree.Call) and line[0].word == "tanh"
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("source", [Source("a.net", "netdsl 1\nnet a { relu "), Source("<text>", PLAIN.text)])
def test_neither_faults_nor_texts_without_a_file_are_kept(source: Source, cache: Path) -> None:
    assert known.syntax_tree(source) == known.syntax_tree(source) == parse_tolerant(source)
    assert not cache.exists()


@pytest.mark.parametrize("damage", [lambda whole: whole[:-5], lambda whole: whole.replace(b"relu", b"tanh"), bytes])
def test_a_damaged_file_is_parsed_anew(damage: object, cache: Path) -> None:
    expected = known.syntax_tree(PLAIN)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    assert known.syntax_tree(PLAIN) == expected and path.read_bytes() == whole


def test_trees_of_another_grammar_do_not_count(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known.syntax_tree(PLAIN)
    (path,) = cache.iterdir()
    kept.write(path, (kept.read(path) or b"").replace(b"relu", b"tanh"))
    assert "tanh" in repr(known.syntax_tree(PLAIN)[0])
    known.ways.cache_clear()
    monkeypatch.setattr(known, "grammar", lambda: "another")
    assert "relu" in repr(known.syntax_tree(PLAIN)[0])
    known.ways.cache_clear()


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    cache.write_text("no folder")
    assert known.syntax_tree(PLAIN) == parse_tolerant(PLAIN)


@pytest.mark.parametrize("direction", ["dumps", "loads"])
def test_a_tree_too_deep_for_json_is_parsed_each_time(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_: object, **__: object) -> object:
        raise RecursionError

    if direction == "loads":
        known.syntax_tree(PLAIN)
    monkeypatch.setattr(json, direction, too_deep)
    assert known.syntax_tree(PLAIN) == parse_tolerant(PLAIN)


def test_a_second_process_never_loads_the_parser(tmp_path: Path) -> None:
    code = "import sys, netdsl\nnetdsl.build('resnet18')\nprint('lark' in sys.modules)"
    for expected in ("True", "False"):
        done = in_fresh_process(code, NETDSL_CACHE=str(tmp_path))
        assert done.returncode == 0 and done.stdout.strip() == expected, done.stderr
