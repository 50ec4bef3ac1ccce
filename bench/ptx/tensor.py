"""What PTX's products of tensor cores do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ptx.memory import Array
from ptx.operands import Lanes, Word, source, target
from ptx.text import Code, Instruction

if TYPE_CHECKING:
    from ptx.machine import Launch


def _halves(words: Array, bfloat: bool) -> Array:
    """Words [..., k] as values [..., 2 k], low halves first."""
    bits = words.astype(np.uint32).view(np.uint16)
    if bfloat:
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return bits.view(np.float16).astype(np.float32)


def _mma(instruction: Instruction, code: Code) -> Word:
    """A warp's product of 16 rows by 8 columns.

    With g = lane / 4 and t = lane % 4, a lane holds of the left matrix the words (g, t), (g + 8, t), (g, t + 4) and
    (g + 8, t + 4), of the right one (t, g) and (t + 4, g), counted down its columns, and of sums (g, 2 t), (g, 2 t + 1)
    and those of row g + 8; a word is one value in tf32 and two in half precision (PTX ISA 9.7.14.5).
    """
    kinds = {"m16n8k8": {"tf32"}, "m16n8k16": {"f16", "bf16"}}
    parts = instruction.parts
    if (
        parts[:3] != ("mma", "sync", "aligned")
        or parts[4:7] != ("row", "col", "f32")
        or parts[7] not in kinds[parts[3]]
    ):
        raise ValueError(f"unknown instruction: {instruction.text}")
    results, lefts, rights, sums = instruction.operands
    assert isinstance(results, tuple) and isinstance(lefts, tuple)
    assert isinstance(rights, tuple) and isinstance(sums, tuple)
    puts = [target(r, code) for r in results]
    get_left, get_right = ([source(w, "u32", code) for w in group] for group in (lefts, rights))
    get_sums = [source(s, "f32", code) for s in sums]
    lane = np.arange(32)
    g, t = lane // 4, lane % 4

    def values(words: Array) -> Array:
        if parts[7] == "tf32":
            return (words & np.uint32(0xFFFFE000)).view(np.float32)
        return _halves(words, parts[7] == "bf16")

    def word(m: Launch, idx: Lanes) -> None:
        warps = len(m.whole_warps(idx))
        every = [
            np.broadcast_to(get(m, idx), 32 * warps).reshape(warps, 32) for get in (*get_left, *get_right, *get_sums)
        ]
        a, b, c = np.empty((warps, 16, 8), np.uint32), np.empty((warps, 8, 8), np.uint32), np.empty((warps, 16, 8))
        for i in range(4):
            a[:, g + 8 * (i % 2), t + 4 * (i // 2)] = every[i]
            c[:, g + 8 * (i // 2), 2 * t + i % 2] = every[6 + i]
        for i in range(2):
            b[:, g, t + 4 * i] = every[4 + i]  # columns of the right matrix
        c += values(a).astype(np.float64) @ values(b).astype(np.float64).transpose(0, 2, 1)
        for i, put in enumerate(puts):
            put(m, idx, c[:, g + 8 * (i // 2), 2 * t + i % 2].astype(np.float32).ravel())

    return word


MAKERS: dict[str, Callable[[Instruction, Code], Word]] = {
    "mma": _mma,
}  # fmt: skip
