"""The words of `ptx.py` in plain Python, for numba.cuda's simulator, where each thread of a block is a Python thread.

The tensor-core words follow the tables of the PTX ISA (9.7.13.4, matrix fragments), written down here apart from the
kernels, so that a kernel that misplaces a value fails in the simulator too.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from netdsl.halves import bfloat16_bits

_exchange: dict[int, tuple[Any, ...]] = {}  # what the threads of the block that runs show each other


def _here() -> Any:
    return threading.current_thread()


def thread_anew() -> int:
    """cuda.threadIdx.x"""
    return int(_here().threadIdx.x)


def block_anew() -> int:
    """cuda.blockIdx.x"""
    return int(_here().blockIdx.x)


def load4(array: Any, at: Any) -> tuple[Any, ...]:
    """array[at : at + 4]"""
    assert at % 4 == 0
    return array[at], array[at + 1], array[at + 2], array[at + 3]


def load2(array: Any, at: Any) -> tuple[Any, ...]:
    """array[at : at + 2]"""
    assert at % 2 == 0
    return array[at], array[at + 1]


def store4(array: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """array[at : at + 4] = a, b, c, d"""
    assert at % 4 == 0
    array[at], array[at + 1], array[at + 2], array[at + 3] = a, b, c, d


def _halves(array: Any) -> Any:
    """The same memory as 16-bit words."""
    return array.view(np.uint16)


def load_half(array: Any, at: Any) -> Any:
    """The 16 bits at place `at`, counted in halves, as the low half of a word that a float32 holds."""
    return bits(int(_halves(array)[at]))


def store_half(array: Any, at: Any, word: Any) -> None:
    """The low half of a word to place `at`, counted in halves."""
    _halves(array)[at] = int(word) & 0xFFFF


def bits(word: Any) -> Any:
    """The float32 that holds a word."""
    return np.uint32(int(word) & 0xFFFFFFFF).view(np.float32)


def copy4(shared: Any, to: Any, array: Any, at: Any, wanted: Any) -> None:
    """shared[to : to + 4] = array[at : at + 4], or zeros where not wanted; at once."""
    assert to % 4 == 0 and (at % 4 == 0 or not wanted)
    for i in range(4):
        shared[to + i] = array[at + i] if wanted else 0.0


def copies_commit() -> None:
    """Nothing: copies are done at once."""


def copies_wait(newest: int) -> None:
    """Nothing: copies are done at once."""


def as_tf32(x: Any) -> int:
    """The word of x rounded to tf32, nearest, ties away from zero."""
    word = int(np.float32(x).view(np.uint32))
    return word if word >> 23 & 255 == 255 else (word + 0x1000) & ~0x1FFF


def as_word(x: Any) -> int:
    """The word that a float32 holds."""
    return int(np.float32(x).view(np.uint32))


def as_f16(low: Any, high: Any) -> int:
    """The word of two values rounded to float16."""
    a, b = np.array([low, high], np.float32).astype(np.float16).view(np.uint16)
    return int(a) | int(b) << 16


def as_bf16(low: Any, high: Any) -> int:
    """The word of two values rounded to bfloat16, nearest, ties to even."""
    a, b = bfloat16_bits(np.array([low, high], np.float32))
    return int(a) | int(b) << 16


def _tf32_of(word: int) -> tuple[float, ...]:
    return (float(np.uint32(word & ~0x1FFF).view(np.float32)),)


def _f16_of(word: int) -> tuple[float, ...]:
    return tuple(float(np.uint16(w).view(np.float16)) for w in (word & 0xFFFF, word >> 16))


def _bf16_of(word: int) -> tuple[float, ...]:
    return tuple(float(np.uint32(w << 16).view(np.float32)) for w in (word & 0xFFFF, word >> 16))


def of_f16(word: Any) -> tuple[Any, ...]:
    """The two float16 values of a word that a float32 array holds, the low half first."""
    return tuple(np.float32(x) for x in _f16_of(int(np.float32(word).view(np.uint32))))


def of_bf16(word: Any) -> tuple[Any, ...]:
    """The two bfloat16 values of a word that a float32 array holds, the low half first."""
    return tuple(np.float32(x) for x in _bf16_of(int(np.float32(word).view(np.uint32))))


def _mma(unpack: Any, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What thread `lane` of a warp gets of the product that its 32 threads ask for together.

    Lane l holds of the left matrix rows l / 4 (words 0 and 2) and l / 4 + 8 (1 and 3), words l % 4 (0, 1) and l % 4 + 4
    (2, 3) of each row; of the right column l / 4, words l % 4 and l % 4 + 4; of the sums rows l / 4 (0, 1) and
    l / 4 + 8 (2, 3), columns 2 (l % 4) and the next.
    """
    thread = _here()
    tid = int(thread.threadIdx.x)
    _exchange[tid] = values
    thread.syncthreads()
    warp, lane = tid // 32 * 32, tid % 32
    left = [[0.0] * 0 for _ in range(16)]
    right = [[0.0] * 0 for _ in range(8)]
    for word in range(8):
        for row in range(16):
            held = _exchange[warp + row % 8 * 4 + word % 4][word // 4 * 2 + row // 8]
            left[row] += unpack(int(held) & 0xFFFFFFFF)
        for column in range(8):
            held = _exchange[warp + column * 4 + word % 4][4 + word // 4]
            right[column] += unpack(int(np.float32(held).view(np.uint32)))
    sums = []
    for e in range(4):
        row, column = lane // 4 + 8 * (e // 2), 2 * (lane % 4) + e % 2
        sums.append(np.float32(values[6 + e] + np.dot(left[row], right[column])))
    thread.syncthreads()
    return tuple(sums)


def mma_tf32(*values: Any) -> tuple[Any, ...]:
    """A warp's product of 16x8 by 8x8 values in tf32, sums in float32."""
    return _mma(_tf32_of, values)


def mma_f16(*values: Any) -> tuple[Any, ...]:
    """A warp's product of 16x16 by 16x8 values in float16, sums in float32."""
    return _mma(_f16_of, values)


def mma_bf16(*values: Any) -> tuple[Any, ...]:
    """A warp's product of 16x16 by 16x8 values in bfloat16, sums in float32."""
    return _mma(_bf16_of, values)
