"""Syntax trees kept between processes: what is read is what was parsed, and only what is parsed now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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


def keep_some(cache: Path, count: int) -> list[Path]:
    """So many trees, each older than the next."""
    paths: list[Path] = []
    for i in range(count):
        known.syntax_tree(Source(f"{i}.net", PLAIN.text))
        (new,) = set(cache.iterdir()) - set(paths)
        os.utime(new, (1000 + i, 1000 + i))
        paths.append(new)
    return paths


@pytest.mark.parametrize("limit", ["MOST_TREES", "MOST_BYTES"])
def test_the_oldest_trees_make_room(limit: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = keep_some(cache, 5)
    monkeypatch.setattr(known, limit, 3 if limit == "MOST_TREES" else 3 * paths[0].stat().st_size)
    known.syntax_tree(Source("5.net", PLAIN.text))
    left = set(cache.iterdir())
    assert len(left) == 3 and left & set(paths) == set(paths[3:])


def test_a_tree_that_is_there_costs_no_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = known.syntax_tree(PLAIN)
    monkeypatch.setattr(kept, "thin_out", None)
    assert known.syntax_tree(PLAIN) == expected


def test_trees_that_cannot_be_removed_stay(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = keep_some(cache, 3)

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(known, "MOST_TREES", 1)
    source = Source("3.net", PLAIN.text)
    assert known.syntax_tree(source) == parse_tolerant(source)
    assert set(paths) < set(cache.iterdir())


@pytest.mark.parametrize("where", ["mkstemp", "replace"])
@pytest.mark.parametrize("why", [(28, "No space left on device"), (30, "Read-only file system")])
def test_a_disk_that_takes_nothing_is_no_error(
    where: str, why: tuple[int, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = keep_some(cache, 2)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(*why)

    monkeypatch.setattr(tempfile if where == "mkstemp" else os, where, refuse)
    source = Source("2.net", PLAIN.text)
    assert known.syntax_tree(source) == known.syntax_tree(source) == parse_tolerant(source)
    assert set(cache.iterdir()) == set(paths)


def test_processes_that_thin_out_at_once_keep_going(tmp_path: Path, cache: Path) -> None:
    code = """if True:
        import sys
        from netdsl.errors import Source
        from netdsl.text import known
        known.MOST_TREES = 3
        for i in range(40):
            file, faults = known.syntax_tree(Source(f"{sys.argv[1]}{i}.net", "netdsl 1\\nnet a {\\n relu\\n}\\n"))
            assert file.nets and not faults
    """
    environment = {**os.environ, "NETDSL_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen([*command, who], env=environment, stderr=subprocess.PIPE, text=True) for who in "abc"]
    for process in running:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0 and not err, err
    assert 1 <= len(list(cache.iterdir())) <= 3


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
