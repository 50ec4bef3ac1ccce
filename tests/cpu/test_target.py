"""What the processor is: asked of LLVM once, and again whenever it may be another."""

from __future__ import annotations

from pathlib import Path

import pytest

from fresh import in_fresh_process
from netdsl.backends.cpu import target

ASK = """
    import sys
    from netdsl.backends.cpu.target import host
    print(host(), "asked" if "llvmlite" in sys.modules else "kept")
"""

INFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: A processor
cpu MHz\t\t: 2400.000
flags\t\t: fpu sse avx2 fma

processor\t: 1
flags\t\t: fpu
"""


def asked(folder: Path) -> tuple[str, str]:
    done = in_fresh_process(ASK, NETDSL_CACHE=str(folder))
    assert done.returncode == 0 and not done.stderr, done.stderr
    words, _, how = done.stdout.strip().rpartition(" ")
    return words, how


@pytest.mark.skipif(not target.CPUINFO.exists(), reason="the system does not say what the processor is")
def test_a_second_process_is_told_the_same_without_llvm(tmp_path: Path) -> None:
    first, second = asked(tmp_path), asked(tmp_path)
    assert first[0] == second[0] and (first[1], second[1]) == ("asked", "kept")
    (file,) = (tmp_path / "targets").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert asked(tmp_path) == first


def test_a_cache_that_cannot_be_written_is_asked_in_vain(tmp_path: Path) -> None:
    (tmp_path / "targets").write_text("no folder")
    assert asked(tmp_path) == asked(tmp_path) and asked(tmp_path)[1] == "asked"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """place(text): where the answer is kept for a processor that the system describes so."""

    def place(text: str) -> Path | None:
        (tmp_path / "cpuinfo").write_text(text)
        return target._answer()

    monkeypatch.setattr(target, "CPUINFO", tmp_path / "cpuinfo")
    return place


def test_another_processor_is_another_answer(place) -> None:  # type: ignore[no-untyped-def]
    assert place(INFO) is not None
    assert place(INFO) == place(INFO.replace("2400.000", "800.123"))  # busy or not
    for other in (INFO.replace(" fma", ""), INFO.replace("A processor", "B"), INFO.replace("vendor_id", "vendor")):
        assert place(other) not in (place(INFO), None)


def test_another_llvm_is_another_answer(place, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    before = place(INFO)
    monkeypatch.setattr(target, "version", lambda package: b"0.0")
    assert place(INFO) != before


def test_a_system_that_says_nothing_is_asked_each_time(place) -> None:  # type: ignore[no-untyped-def]
    assert place("") is None and place("processor : 0\n") is None


def test_caches_are_as_large_as_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"), ("3", "Unified", "260M")]
    for i, facts in enumerate([*said, ("4", "Unified", "much"), ("five", "Unified", "1K")]):
        folder = tmp_path / f"index{i}"
        folder.mkdir()
        for name, text in zip(("level", "type", "size"), facts, strict=True):
            (folder / name).write_text(f"{text}\n")
    (tmp_path / "index9").mkdir()
    monkeypatch.setattr(target, "CACHES", tmp_path)
    assert target.cache_bytes() == {1: 48 << 10, 2: 2 << 20, 3: 260 << 20}
    monkeypatch.setattr(target, "CACHES", tmp_path / "missing")
    assert target.cache_bytes() == {}
