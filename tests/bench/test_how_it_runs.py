"""docs/how-it-runs.md shows what happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import how_it_runs
from how_it_runs import DOCUMENT, PART, PARTS, main, rewritten
from netdsl.backends.cpu.target import WIDTH

TEXT = DOCUMENT.read_text(encoding="utf-8")
SHOWN = {match[2]: match[0].split("\n", 1)[1].removesuffix(match[3]) for match in PART.finditer(TEXT)}

wide = pytest.mark.skipif(WIDTH != 16, reason="the document shows vectors of 16 lanes")


def test_every_part_is_in_the_document_beside_its_command() -> None:
    assert list(SHOWN) == list(PARTS)
    for part in PARTS:
        assert f"```bash\npython bench/how_it_runs.py {part}\n```\n\n<!-- part {part} -->" in TEXT


@wide
@pytest.mark.parametrize("part", ["text", "graph", "rewrite", "plan", "kernel", "roofline"])
def test_a_part_is_up_to_date(part: str) -> None:
    assert PARTS[part]() == SHOWN[part], "run python bench/how_it_runs.py --write"


@wide
def test_the_loop_is_up_to_date() -> None:
    if f"{how_it_runs.compiled_by()}\n" not in SHOWN["loop"]:
        pytest.skip(f"the document's was {SHOWN['loop'].splitlines()[1][2:]}, which orders instructions in its own way")
    assert PARTS["loop"]() == SHOWN["loop"], "run python bench/how_it_runs.py --write"


@wide
def test_the_loop_is_what_the_document_says_of_it() -> None:
    words = [line.split()[0] for line in PARTS["loop"]().splitlines() if line.startswith("    ")]
    lines, rows, cols = how_it_runs.step().kernel.constants[:3]
    assert words.count("vfmadd231ps") == lines * rows * cols >= 24
    assert words.count("vbroadcastss") == lines * rows and 0 < words.count("vmovups") <= cols and "prefetcht0" in words
    assert not any("(%rsp)" in line for line in PARTS["loop"]().splitlines())  # nothing is spilled


def test_times_come_from_the_results_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"path": how_it_runs.LAYER, "kernel": "conv", "seconds": 1e-4, "share": 0.1, "macs": 10**7, "bytes": 10**6}
    profile = {"machine": {"threads": 2, "flops": 4e11, "bandwidth": 1e10}, "steps": [step]}
    record = {"machine": {"processor": "a processor"}, "commit": "abc", "results": profile}
    monkeypatch.setattr(how_it_runs, "RESULT", tmp_path / "how_it_runs.json")
    (tmp_path / "how_it_runs.json").write_text(json.dumps(record))
    part = PARTS["roofline"]()
    assert "2 threads on a processor, commit abc" in part
    assert "| speed | 200 GFLOP/s |" in part and "| time | 100.0 µs, 10.0% of the network |" in part
    assert "| roof here | 200 GFLOP/s (bound by memory) |" in part and "| of the roof | 100% |" in part


def test_writing_changes_the_parts_alone() -> None:
    document = "before\n<!-- part text -->\nold\n<!-- /part -->\nafter\n"
    assert rewritten(document) == f"before\n<!-- part text -->\n{PARTS['text']()}<!-- /part -->\nafter\n"


def test_a_part_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["text"])
    assert capsys.readouterr().out == SHOWN["text"]
