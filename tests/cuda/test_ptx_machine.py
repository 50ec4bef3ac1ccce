"""The machine that runs PTX, on kernels written by hand: what instructions do, and what it does not let pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptx.machine import Machine
from ptx.memory import Card, Fault
from ptx.text import parse
from ptx.traffic import Traffic

Array = np.ndarray[Any, Any]

KERNEL = """
.version 8.0
.target sm_90
.visible .shared .align 16 .b8 room[1024];
.visible .entry kernel(.param .u64 a, .param .u64 b)
{
  .local .align 16 .b8 mine[16];
  .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<40>; .reg .b64 %rd<30>; .reg .f32 %f<30>;
  ld.param.u64 %rd1, [a];
  ld.param.u64 %rd2, [b];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mad.lo.s32 %r4, %r2, %r3, %r1; // the thread's number
  mul.wide.u32 %rd3, %r4, 4;
  add.s64 %rd4, %rd1, %rd3; // its place in a
  add.s64 %rd5, %rd2, %rd3; // its place in b
  shl.b32 %r5, %r1, 2;
  cvt.u64.u32 %rd6, %r5;
  mov.u64 %rd7, room;
  add.s64 %rd8, %rd7, %rd6; // its word of shared memory
BODY
  ret;
}
"""


def run(
    body: str, a: Array, b: Array | None = None, grid: int = 1, block: int = 32, traffic: Traffic | None = None
) -> Array:
    """What a body leaves in b, whose type is a's unless it is given."""
    card, places = Card(1 << 16), []
    b = np.zeros_like(a) if b is None else b
    for values in (a, b):
        address = card.allocate(max(16, values.nbytes))
        assert address is not None
        card.view(address, values.size, values.dtype)[:] = values
        places.append(address)
    with np.errstate(all="ignore"):
        Machine(card, lanes=64, traffic=traffic).launch(
            parse(KERNEL.replace("BODY", body)), (grid, 1, 1), (block, 1, 1), places
        )
    return card.view(places[1], b.size, b.dtype).copy()


FLOATS = np.array(
    [0, -0.0, 1, -1.5, 2.5, 1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan, 0.1, 7, -7, 300, 1e-3], np.float32
)
INTS = np.array([0, 1, -1, 2, 7, -7, 100, 2**31 - 1, -(2**31), 12345678, -12345678, 31, 32, 33, 65535, 65536], np.int32)

F, U = np.float32, np.uint32
ONE_FLOAT = {
    "add.f32 %f2, %f1, 0f3DCCCCCD": lambda x: x + F(0.1),
    "fma.rn.f32 %f2, %f1, %f1, 0f3F800000": lambda x: (x.astype(np.float64) * x + 1).astype(F),
    "neg.f32 %f2, %f1": lambda x: -x,
    "max.f32 %f2, %f1, 0f00000000": lambda x: np.where(np.isnan(x), F(0), np.maximum(x, F(0))),
    "rcp.rn.f32 %f2, %f1": lambda x: F(1) / x,
    "div.rn.f32 %f2, %f1, 0f40400000": lambda x: x / F(3),
    "copysign.f32 %f2, %f1, 0f40400000": lambda x: np.copysign(F(3), x),
    "cvt.sat.f32.f32 %f2, %f1": lambda x: np.where(np.isnan(x), F(0), np.clip(x, F(0), F(1))),
    "cvt.rni.f32.f32 %f2, %f1": np.rint,
    "cvt.rmi.f32.f32 %f2, %f1": np.floor,
    "setp.gtu.f32 %p1, %f1, 0f3F800000; selp.f32 %f2, %f1, 0f40000000, %p1": lambda x: np.where(~(x <= 1), x, F(2)),
    "setp.ne.f32 %p1, %f1, 0f3F800000; selp.f32 %f2, %f1, 0f40000000, %p1": lambda x: np.where(
        (x < 1) | (x > 1), x, F(2)
    ),
    "setp.nan.f32 %p1, %f1, %f1; @%p1 mov.f32 %f1, 0f40000000; mov.f32 %f2, %f1": lambda x: np.where(
        np.isnan(x), F(2), x
    ),
    "{ .reg .b16 h; .reg .b32 w; cvt.rn.f16x2.f32 w, 0f00000000, %f1; mov.b32 {h, %rs1}, w; cvt.f32.f16 %f2, h; }": (
        lambda x: x.astype(np.float16).astype(F)
    ),
    "mov.b32 %r9, %f1; and.b32 %r10, %r9, 2147483647; mov.b32 %f2, %r10": np.abs,
    "ex2.approx.ftz.f32 %f2, %f1": lambda x: np.where(np.exp2(x) < 1.2e-38, F(0), np.exp2(x)),
}
ONE_INT = {
    "add.s32 %r9, %r8, 2147483647": lambda x: (x.astype(np.int64) + 2**31 - 1).astype(np.int32),
    "mul.lo.s32 %r9, %r8, %r8": lambda x: (x.astype(np.int64) * x).astype(np.int32),
    "shl.b32 %r9, 3, %r8": lambda x: np.where(x.view(U) < 32, 3 << (x & 31), 0).astype(np.int32),
    "shr.s32 %r9, %r8, 40": lambda x: x >> 31,
    "shr.u32 %r9, %r8, 4": lambda x: (x.view(U) >> U(4)).view(np.int32),
    "div.s32 %r9, %r8, 7": lambda x: np.trunc(x / 7).astype(np.int32),
    "rem.s32 %r9, %r8, 7": lambda x: np.fmod(x, 7),
    "div.u32 %r9, %r8, 7": lambda x: (x.view(U) // U(7)).view(np.int32),
    "cvt.s32.s16 %r9, %r8": lambda x: x.astype(np.int16).astype(np.int32),
    "prmt.b32 %r9, %r8, 305419896, 4180": lambda x: (x & 0xFFFF) << 16 | 0x5678,
    "setp.lt.u32 %p1, %r8, 100; selp.b32 %r9, 1, -1, %p1": lambda x: np.where(x.view(U) < 100, 1, -1).astype(np.int32),
    "cvt.s64.s32 %rd9, %r8; mul.lo.s64 %rd10, %rd9, %rd9; shr.s64 %rd11, %rd10, 32; cvt.u32.u64 %r9, %rd11": lambda x: (
        (x.astype(np.int64) * x) >> 32
    ).astype(np.int32),
    "xor.b32 %r9, %r8, -1": lambda x: ~x,
    "mul.wide.s32 %rd9, %r8, -3; cvt.u32.u64 %r9, %rd9": lambda x: (x.astype(np.int64) * -3).astype(np.int32),
    "cvta.local.u64 %rd9, mine; cvta.to.local.u64 %rd9, %rd9; st.local.u32 [%rd9+4], %r8; ld.local.u32 %r9, [%rd9+4]": (
        lambda x: x
    ),
}


@pytest.mark.parametrize("text", ONE_FLOAT)
def test_instructions_for_floats(text: str) -> None:
    with np.errstate(all="ignore"):
        wanted = ONE_FLOAT[text](FLOATS)
    body = f"ld.global.f32 %f1, [%rd4]; {text}{'' if text[-1] == '}' else ';'} st.global.f32 [%rd5], %f2;"
    found = run(body, FLOATS, block=16)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("text", ONE_INT)
def test_instructions_for_whole_numbers(text: str) -> None:
    with np.errstate(all="ignore"):
        wanted = ONE_INT[text](INTS)
    found = run(f"ld.global.u32 %r8, [%rd4]; {text}; st.global.u32 [%rd5], %r9;", INTS, block=16)
    np.testing.assert_array_equal(found, wanted)


def test_bytes_of_words_are_chosen() -> None:
    a = np.full(32, 0x44332211, np.int32)
    found = run("ld.global.u32 %r8, [%rd4]; prmt.b32 %r9, %r8, -2004318072, 42019; st.global.u32 [%rd5], %r9;", a)
    selected = [0x11, 0x22, 0x33, 0x44, 0x88, 0x88, 0x88, 0x88]
    wanted = 0
    for i, number in enumerate([42019 >> 4 * i & 15 for i in range(4)]):
        byte = selected[number & 7]
        wanted |= ((0xFF if byte >> 7 else 0) if number & 8 else byte) << 8 * i
    assert found.view(U)[0] == wanted


def test_threads_that_come_apart_meet_again() -> None:
    """Each adds up the numbers below its own; lanes past 20 leave at once."""
    body = """
      setp.gt.s32 %p1, %r1, 20;
      @%p1 ret;
      mov.u32 %r8, 0; mov.u32 %r9, 0;
    loop:
      setp.ge.s32 %p2, %r8, %r1;
      @%p2 bra done;
      add.s32 %r9, %r9, %r8;
      add.s32 %r8, %r8, 1;
      bra.uni loop;
    done:
      st.global.u32 [%rd5], %r9;
    """
    found = run(body, np.zeros(96, np.int32), grid=3)
    assert found.tolist() == [i * (i - 1) // 2 if i <= 20 else 0 for i in range(32)] * 3


MOVE = "ld.global.f32 %f1, [%rd4]; st.shared.f32 [%rd8], %f1;"
NEXT = "xor.b32 %r8, %r5, 128; cvt.u64.u32 %rd9, %r8; add.s64 %rd10, %rd7, %rd9;"  # the word of the thread 32 on
TAKE = "ld.shared.f32 %f2, [%rd10]; st.global.f32 [%rd5], %f2;"


def test_a_barrier_lets_threads_see_what_others_wrote() -> None:
    a = np.arange(128, dtype=np.float32)
    found = run(f"{MOVE} {NEXT} bar.sync 0; {TAKE}", a, grid=2, block=64)
    assert np.array_equal(found.reshape(2, 2, 32), a.reshape(2, 2, 32)[:, ::-1])


def test_a_vote_is_heard_by_all_of_a_block() -> None:
    body = """
      ld.global.u32 %r8, [%rd4]; setp.ne.u32 %p1, %r8, 0;
      bar.red.or.pred %p2, 0, %p1;
      selp.u32 %r9, 1, 0, %p2; st.global.u32 [%rd5], %r9;
    """
    a = np.zeros(192, np.int32)
    a[70] = 1
    assert run(body, a, grid=3, block=64).tolist() == [0] * 64 + [1] * 64 + [0] * 64


COPY = (
    "shl.b32 %r8, %r1, 4; cvt.u64.u32 %rd9, %r8; add.s64 %rd10, %rd1, %rd9; cvt.u32.u64 %r9, %rd9; mov.u32 %r11, SIZE;"
)
START = "cp.async.cg.shared.global [%r9], [%rd10], 16, %r11; cp.async.commit_group;"
FETCH = "ld.shared.f32 %f2, [%rd8]; st.global.f32 [%rd5], %f2;"


@pytest.mark.parametrize(("size", "factor"), [("16", 1), ("0", 0)])
def test_copies_arrive_when_they_are_waited_for(size: str, factor: int) -> None:
    a = np.arange(1, 129, dtype=np.float32)
    body = f"{COPY.replace('SIZE', size)} {START} cp.async.wait_group 0; bar.sync 0; {FETCH}"
    assert np.array_equal(run(body, a, np.zeros(32, np.float32)), factor * a[:32])


def words_of(matrix: Array, precision: str) -> Array:
    """Rows of values as words of 4 bytes."""
    if precision == "tf32":
        return np.ascontiguousarray(matrix, np.float32)
    if precision == "f16":
        return np.ascontiguousarray(matrix, np.float16).view(np.float32)
    return (np.ascontiguousarray(matrix, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.float32)


@pytest.mark.parametrize(("precision", "depth"), [("tf32", 8), ("f16", 16), ("bf16", 16)])
def test_products_of_tensor_cores(precision: str, depth: int) -> None:
    """Of whole numbers that every type holds, fetched as the tables of the instruction set place them."""
    rng = np.random.default_rng(0)
    left, right = (
        rng.integers(-8, 9, (16, depth)).astype(np.float32),
        rng.integers(-8, 9, (8, depth)).astype(np.float32),
    )
    sums = rng.integers(-8, 9, (16, 8)).astype(np.float32)
    a = np.concatenate([words_of(left, precision).ravel(), words_of(right, precision).ravel(), sums.ravel()])
    body = f"""
      shr.u32 %r8, %r1, 2; and.b32 %r9, %r1, 3;
      mad.lo.s32 %r10, %r8, 8, %r9; mul.wide.u32 %rd9, %r10, 4; add.s64 %rd10, %rd1, %rd9;
      ld.global.u32 %r11, [%rd10]; ld.global.u32 %r12, [%rd10+256]; ld.global.u32 %r13, [%rd10+16];
      ld.global.u32 %r14, [%rd10+272]; ld.global.u32 %r15, [%rd10+512]; ld.global.u32 %r16, [%rd10+528];
      shl.b32 %r17, %r9, 1; mad.lo.s32 %r18, %r8, 8, %r17; mul.wide.u32 %rd11, %r18, 4; add.s64 %rd12, %rd1, %rd11;
      ld.global.v2.f32 {{%f1, %f2}}, [%rd12+768]; ld.global.v2.f32 {{%f3, %f4}}, [%rd12+1024];
      mma.sync.aligned.m16n8k{depth}.row.col.f32.{precision}.{precision}.f32 {{%f5, %f6, %f7, %f8}},
        {{%r11, %r12, %r13, %r14}}, {{%r15, %r16}}, {{%f1, %f2, %f3, %f4}};
      add.s64 %rd13, %rd2, %rd11;
      st.global.v2.f32 [%rd13], {{%f5, %f6}}; st.global.v2.f32 [%rd13+256], {{%f7, %f8}};
    """
    found = run(body, a, np.zeros(128, np.float32)).reshape(16, 8)
    assert np.array_equal(found, sums + left @ right.T)


SHIFTED = "shl.b32 %r8, %r1, SHIFT; cvt.u64.u32 %rd9, %r8; add.s64 %rd10, %rd7, %rd9; ld.shared.f32 %f1, [%rd10];"


@pytest.mark.parametrize(("shift", "waves"), [("2", 1), ("3", 2), ("5", 8)])
def test_banks_of_shared_memory(shift: str, waves: int) -> None:
    """A warp's words one, two and eight words apart."""
    traffic = Traffic()
    run(SHIFTED.replace("SHIFT", shift), np.zeros(32, np.float32), traffic=traffic)
    assert (traffic.least, traffic.waves) == (1, waves)


@pytest.mark.parametrize(("shift", "sectors"), [("0", 1), ("2", 4), ("3", 8), ("5", 32)])
def test_sectors_of_global_memory(shift: str, sectors: int) -> None:
    """A warp's words all the same, side by side, and further apart."""
    traffic = Traffic()
    body = "shl.b32 %r8, %r1, SHIFT; and.b32 %r8, %r8, -4; cvt.u64.u32 %rd9, %r8; add.s64 %rd10, %rd1, %rd9;"
    body = body.replace("SHIFT", shift) if shift != "0" else "mov.u64 %rd10, %rd1;"
    run(body + "ld.global.f32 %f1, [%rd10];", np.zeros(512, np.float32), traffic=traffic)
    assert traffic.carried["load"] == 32 * sectors and traffic.asked["load"] == 128


FAULTS: dict[str, tuple[str, int, str]] = {
    "no barrier": (f"{MOVE} {NEXT} {TAKE}", 64, "reads what another wrote"),
    "a barrier too early": (f"bar.sync 0; {MOVE} {NEXT} {TAKE}", 64, "reads what another wrote"),
    "read, then overwritten": (
        f"{MOVE} {NEXT} bar.sync 0; ld.shared.f32 %f2, [%rd10]; st.shared.f32 [%rd8], %f2;", 64, "what another read",
    ),
    "one place for all": (f"st.shared.f32 [%rd7], 0f00000000; {NEXT}", 64, "at once"),
    "a barrier for some": ("setp.gt.u32 %p1, %r1, 40; @%p1 ret; bar.sync 0;", 64, "never come to"),
    "two barriers": (
        "setp.gt.u32 %p1, %r1, 40; @%p1 bra far; bar.sync 0; bra.uni done; far: bar.sync 0; done:", 64, "different",
    ),
    "a copy not waited for": (f"{COPY.replace('SIZE', '16')} {START} bar.sync 0; {FETCH}", 32, "on its way"),
    "a copy closed too late": (
        f"{COPY.replace('SIZE', '16')} {START.split(';')[0]}; cp.async.wait_group 0; bar.sync 0; {FETCH}", 32,
        "on its way",
    ),
    "a copy others do not know of": (
        f"{COPY.replace('SIZE', '16')} {START} cp.async.wait_group 0; {FETCH}", 32, "reads what another wrote",
    ),
    "memory of nobody": ("st.global.f32 [%rd5+4096], 0f00000000;", 32, "nobody has allocated"),
    "far outside": ("st.global.f32 [%rd3], 0f00000000;", 32, "outside of the card"),
    "past a block's own": ("st.shared.f32 [%rd8+1020], 0f00000000;", 32, "outside of the block"),
    "not aligned": ("ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd4];", 32, "no multiple of 16"),
    "half a warp's product": (
        "setp.gt.u32 %p1, %r1, 15; @%p1 ret; mov.f32 %f1, 0f00000000; mov.u32 %r8, 0;"
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r8, %r8, %r8, %r8}, {%r8, %r8},"
        " {%f1, %f1, %f1, %f1};", 32, "part of a warp",
    ),
    "a register nobody wrote": ("st.global.f32 [%rd5], %f9;", 32, "before it is written"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    body, block, said = FAULTS[name]
    with pytest.raises(Fault, match=said):
        run(body, np.zeros(128, np.float32), block=block)


ORDER = """
  ld.param.u64 %rd9, [b]; setp.ne.u32 %p1, %r2, 0; @%p1 bra second;
  st.global.f32 [%rd5], 0f3F800000;
  FENCE
  bra.uni done;
second:
  ATOMIC
  sub.s64 %rd10, %rd5, 128; ld.global.f32 %f1, [%rd10]; st.global.f32 [%rd5], %f1;
done:
"""
FENCE, ATOMIC = "membar.gl;", "atom.global.add.u32 %r8, [%rd9+1024], 1;"


@pytest.mark.parametrize(
    ("fence", "atomic", "ordered"), [(FENCE, ATOMIC, True), ("", ATOMIC, False), (FENCE, "", False)]
)
def test_blocks_see_each_others_work_after_a_fence_and_an_atomic_operation(
    fence: str, atomic: str, ordered: bool
) -> None:
    body, b = ORDER.replace("FENCE", fence).replace("ATOMIC", atomic), np.zeros(512, np.float32)
    if ordered:
        assert run(body, np.zeros(64, np.float32), b, grid=2)[:64].all()
        return
    with pytest.raises(Fault, match="reads what another wrote"):
        run(body, np.zeros(64, np.float32), b, grid=2)


@pytest.mark.parametrize("text", ["frobnicate.f32 %f1, %f2;", "fma.rz.f32 %f1, %f1, %f1, %f1;", "ld.f32 %f1, [%rd1];"])
def test_what_is_not_known_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        run(text, np.zeros(32, np.float32))


def test_a_launch_that_no_card_takes() -> None:
    with pytest.raises(Fault, match="no such launch"):
        Machine(Card(1 << 12)).launch(parse(KERNEL.replace("BODY", "")), (1, 1, 1), (2048, 1, 1), [0, 0])


def test_memory_is_used_again() -> None:
    card = Card(1 << 12)
    places = [card.allocate(n) for n in (100, 1000, 300)]
    assert all(p is not None and p % 256 == 0 for p in places) and card.allocate(4000) is None
    assert card.release(places[1] or 0) and not card.release(12345)
    assert card.allocate(900) == places[1]
