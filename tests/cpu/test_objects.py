"""Object files placed into memory: their code gives what LLVM's linker makes of it, and what is unusual is declined."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from netdsl.backends import cpu
from netdsl.backends.cpu import jit, objects
from netdsl.backends.cpu.objects import place
from netdsl.graph.build import build
from netdsl.weights import random_weights

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="elsewhere LLVM links kernels"
)

ADD = "define i64 @f(i64 %a, i64 %b) {\n %c = add i64 %a, %b\n ret i64 %c\n}\n"
TABLE = """
@t = private constant [4 x i64] [i64 5, i64 7, i64 11, i64 13], align 64
@u = private constant ptr getelementptr ([4 x i64], ptr @t, i64 0, i64 2)
define i64 @f(i64 %a, i64 %b) {
  %p = getelementptr [4 x i64], ptr @t, i64 0, i64 %a
  %x = load i64, ptr %p
  %q = load ptr, ptr @u
  %y = load i64, ptr %q
  %s = call i64 @g(i64 %x, i64 %y)
  ret i64 %s
}
define i64 @g(i64 %a, i64 %b) noinline {
  %c = mul i64 %a, %b
  ret i64 %c
}
"""
OUTSIDE = "declare i64 @labs(i64)\ndefine i64 @f(i64 %a, i64 %b) {\n %c = call i64 @labs(i64 %a)\n ret i64 %c\n}\n"
UNKNOWN = OUTSIDE.replace("labs", "no_such_function_anywhere")
STATE = "@s = internal global i64 3\ndefine i64 @f(i64 %a, i64 %b) {\n store i64 %a, ptr @s\n ret i64 %b\n}\n"
ZEROS = STATE.replace("global i64 3", "global i64 0")
PER_THREAD = STATE.replace("internal global", "internal thread_local global")


def compiled(text: str, model: str = "large") -> bytes:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(codemodel=model, reloc="static")
    code: bytes = machine.emit_object(llvm.parse_assembly(text))
    return code


def function(code: bytes) -> Callable[[int, int], int]:
    address = place(code, "f")
    assert address is not None
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(address)


def test_code_alone() -> None:
    assert function(compiled(ADD))(40, 2) == 42


def test_constants_addresses_and_calls_within() -> None:
    f = function(compiled(TABLE))
    assert [f(i, 0) for i in range(4)] == [55, 77, 121, 143]


def test_a_function_of_the_c_library() -> None:
    assert function(compiled(OUTSIDE))(-7, 0) == 7


@pytest.mark.parametrize("name", ["UNKNOWN", "STATE", "ZEROS", "PER_THREAD"])
def test_what_is_unusual_is_declined(name: str) -> None:
    assert place(compiled(globals()[name]), "f") is None


def test_relocations_of_other_code_models_are_declined() -> None:
    assert place(compiled(TABLE, "small"), "f") is None


def test_a_function_that_is_not_there_is_declined() -> None:
    assert place(compiled(ADD), "g") is None


def test_any_other_file_is_declined() -> None:
    code = compiled(TABLE)
    assert place(b"", "f") is None and place(b"\x7fELF" + bytes(9000), "f") is None
    assert place(code[:18] + b"\xb7" + code[19:], "f") is None  # for ARM
    for n in range(0, len(code), 7):
        assert place(code[:n], "f") is None


def test_fields_that_are_wrong_never_reach_beyond_the_file() -> None:
    """Whatever a byte is changed to, an object is placed or declined; its code is not run."""
    code, rng = compiled(TABLE), np.random.default_rng(0)
    headers = int.from_bytes(code[40:48], "little")
    for _ in range(3000):
        changed = bytearray(code)
        changed[rng.choice((rng.integers(24, 64), rng.integers(headers, len(code))))] = rng.integers(256)
        found = place(bytes(changed), "f")
        assert found is None or found > 0


def test_a_system_without_executable_memory_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_executable", lambda address, size: False)
    assert place(compiled(ADD), "f") is None


def test_placed_code_cannot_be_written() -> None:
    address = place(compiled(ADD), "f")
    assert address is not None
    rights = []
    for words in map(str.split, Path("/proc/self/maps").read_text().splitlines()):
        first, end = (int(word, 16) for word in words[0].split("-"))
        if first <= address < end:
            rights.append(words[1])
    assert rights == ["r-xp"]


def test_llvms_linker_makes_the_same_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build("lenet5")
    weights, x = random_weights(graph, 0), np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)
    (placed,) = cpu.lower(graph, weights, 1)([x])
    linked: list[str] = []
    monkeypatch.setattr(jit, "place", lambda code, symbol: linked.append(symbol))
    monkeypatch.setattr(jit, "_loaded", {})
    (found,) = cpu.lower(graph, weights, 1)([x])
    assert len(linked) > 3 and np.array_equal(found, placed)
