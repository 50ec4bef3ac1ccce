"""float32 to the bits of 16-bit numbers: nearest, ties to even, for every number that 16 bits hold."""

from __future__ import annotations

import numpy as np
import pytest

from netdsl.halves import BITS

WIDENED = {
    "float16": lambda bits: bits.view(np.float16).astype(np.float32),
    "bfloat16": lambda bits: (bits.astype(np.uint32) << 16).view(np.float32),
}
INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}


@pytest.fixture(params=BITS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_16_bits_hold_stays(kind: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = WIDENED[kind](bits)
    known = ~np.isnan(values)
    assert np.array_equal(BITS[kind](values)[known], bits[known])
    assert np.isnan(WIDENED[kind](BITS[kind](values[~known]))).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_middle_of_two_goes_to_the_even_one_and_its_neighbours_to_the_nearer(kind: str, sign: int) -> None:
    lower = np.arange(INFINITE[kind] - 1, dtype=np.uint16)
    ends = [WIDENED[kind](lower + np.uint16(n)).astype(np.float64) for n in (0, 1)]
    middle = ((ends[0] + ends[1]) / 2).astype(np.float32)
    assert np.array_equal(middle, (ends[0] + ends[1]) / 2)  # float32 holds all of them
    top = np.uint16(0x8000 if sign < 0 else 0)
    assert np.array_equal(BITS[kind](sign * middle), lower + (lower & 1) | top)
    if kind == "float16":  # the next float32 on either side
        assert np.array_equal(BITS[kind](sign * np.nextafter(middle, np.float32(0))), lower | top)
        assert np.array_equal(BITS[kind](sign * np.nextafter(middle, np.float32(np.inf))), lower + 1 | top)


def test_beyond_the_range_is_infinite() -> None:
    x = np.array([65519, 65520, -1e6, np.inf], np.float32)
    assert BITS["float16"](x).tolist() == [0x7BFF, 0x7C00, 0xFC00, 0x7C00]
    x = np.array([np.finfo(np.float32).max, -np.inf], np.float32)
    assert BITS["bfloat16"](x).tolist() == [0x7F80, 0xFF80]
