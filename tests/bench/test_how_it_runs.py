"""docs/how-it-runs.md shows what happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cubin
import how_gpu_runs
import how_it_runs
from how_it_runs import DOCUMENT, PART, PARTS, main, rewritten
from netdsl.backends.cpu.target import WIDTH
from netdsl.backends.cpu.tiles import BAND_BYTES

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
    if part == "plan" and BAND_BYTES != 1 << 20:
        pytest.skip("the document's bands were cut for a second-level cache of 2 MiB")
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


@pytest.mark.parametrize("part", ["gpu_plan", "gpu_kernel", "gpu_ladder"])
def test_a_part_of_the_gpu_half_is_up_to_date(part: str) -> None:
    assert PARTS[part]() == SHOWN[part], "run python bench/how_it_runs.py --write"


@pytest.mark.skipif(cubin.missing() is not None, reason=cubin.missing() or "")
@pytest.mark.parametrize("part", ["gpu_ptx", "gpu_loop", pytest.param("gpu_code", marks=pytest.mark.slow)])
def test_what_is_compiled_for_a_gpu_is_up_to_date(part: str) -> None:
    made = PARTS[part]()
    if how_gpu_runs.compiled_by().lower() not in SHOWN[part].lower():
        pytest.skip("the document's was compiled by other versions")
    assert made == SHOWN[part], "run python bench/how_it_runs.py --write"


def test_the_gpu_code_is_what_the_document_says_of_it() -> None:
    loop, ptx, rows = (SHOWN[part].splitlines() for part in ("gpu_loop", "gpu_ptx", "gpu_code"))
    assert sum("FFMA" in line for line in loop) == 64 and sum("LDS.128" in line for line in loop) == 8
    assert not any(word in line for line in loop for word in ("LDL", "STL", "LDG", "STG"))
    assert loop[-2].split()[-1] == f"0x{loop[2].split()[0]}"  # it ends with a branch to its beginning
    for word in ("cp.async.wait_group", "cp.async.cg.shared.global", "ld.shared.v4.f32", "62 of them fma.rn.f32"):
        assert any(word in line for line in ptx)
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in rows if " | `" in line}
    assert list(cells) == list(how_gpu_runs.PRECISIONS) and all(row[6] == "0" for row in cells.values())
    assert int(cells["float32"][8]) >= 64 and all(int(cells[p][9]) >= 2 for p in ("tf32", "float16"))


def test_the_ladder_says_whether_it_ran() -> None:
    rung = {"rung": "one", "registers": 56, "shared_bytes": 0, "spills": 0, "occupancy": 0.5}
    record = {"convolution": "64x56", "batch": 8, "compilers": {"numba-cuda": "1", "nvidia-nvvm": "2"}, "gpu": None,
              "capability": "9.0", "machine": {"date": "2026-01-02"}, "results": [rung]}  # fmt: skip
    text = how_gpu_runs.ladder(record)
    assert "64 channels on 56x56 maps, batch 8" in text and "; never run:" in text
    assert text.endswith("| one | 56 | 0 | 0 | 50% | - | - |")
    card = {"card": "a card", "driver": "580.1"}
    ran = how_gpu_runs.ladder(record | {"gpu": card, "results": [rung | {"flops": 2.5e13, "part_of_peer": 0.5}]})
    assert "; measured on a card, driver 580.1:" in ran and ran.endswith("| 50% | 25.0 | 0.50 |")


def test_what_cannot_be_compiled_stays_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cubin, "missing", lambda: "nvdisasm not found: pip install it")
    document = "<!-- part gpu_loop -->\nold\n<!-- /part -->\n<!-- part text -->\nold\n<!-- /part -->\n"
    assert rewritten(document) == document.replace("text -->\nold\n", f"text -->\n{PARTS['text']()}")
    assert capsys.readouterr().err == "gpu_loop stays as it is: nvdisasm not found: pip install it\n"
    with pytest.raises(SystemExit, match="nvdisasm not found"):
        main(["gpu_loop"])


def test_the_smallest_loop_with_the_most_of_an_instruction_is_found() -> None:
    words = ["MOV", "FFMA", "LDS", "FFMA", "@P0 BRA 0x1", "FFMA", "@P1 BRA 0x5", "BRA 0x0", "BRA 0x9", "EXIT"]
    assert [address for address, _ in cubin.loop_of([*enumerate(words)], "FFMA")] == [*range(8)]
    assert [address for address, _ in cubin.loop_of([*enumerate(words)][:7], "FFMA")] == [1, 2, 3, 4]


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
