"""docs/language.md: its examples are built, its errors are the real ones, its tables are up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graph.reference_tables import TABLES
from netdsl.errors import SourceError
from netdsl.graph.build import check

DOCUMENT = Path(__file__).parents[2] / "docs" / "language.md"
BLOCK = re.compile(r"^```(?:net|text(?= file=))([^\n]*)\n(.*?)^```$(?:\n```text\n(.*?)^```$)?", re.M | re.S)
TABLE = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert len(blocks) > 20
    for attributes, text, expected in blocks:
        name = re.sub(r"^ file=| error$", "", attributes) or "example.net"
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        if not name.endswith(".net"):
            continue
        if attributes == " error":
            with pytest.raises(SourceError) as caught:
                check(name)
            assert caught.value.render() == expected.rstrip("\n")
        else:
            assert check(name) is not None or "file=" in attributes, text


def test_tables(request: pytest.FixtureRequest) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert {name for _, name, _, _ in TABLE.findall(text)} == set(TABLES)
    made = TABLE.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[4]}", text)
    if request.config.getoption("--update-golden"):
        DOCUMENT.write_text(made, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == made, "run this test with --update-golden"


def test_links_inside() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    titles = {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in re.findall(r"^## (.*)$", text, re.M)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= titles
