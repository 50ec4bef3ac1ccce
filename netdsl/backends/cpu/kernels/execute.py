"""The executor: walks a table of steps on every thread of a team, with a barrier where a step needs one.

A step is cut into parts (mailbox.py has the words). Each thread begins with a range of neighbouring parts, takes half
of what is left of it at a time, and in the end half of what is left of another's: processors are rarely equally fast,
least of all those that a machine shares with others. The last thread at a barrier deals the ranges of the next step.

A worker that sees no call for a while parks: it returns to Python and blocks on a semaphore there. `run` wakes parked
workers by reporting them, so that the hot path never enters the kernel of the operating system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from netdsl.backends.cpu.mailbox import (
    ARRIVED,
    AWAKE,
    LEFT,
    LINE,
    PARKED,
    PHASE,
    ROW_BYTES,
    STATE,
    STEPS,
    TABLE,
    THREADS,
    TICKET,
)
from netdsl.backends.cpu.simd import I64, i64, leaf

LOW = 0xFFFFFFFF
SPINS = 50000  # chosen: reads before a worker parks, some 100 to 200 us
PATIENCE = 2000  # chosen: reads at a barrier before the processor is offered to others, some 10 us
# Some hosts take a processor away from a machine that pauses in a tight loop: pauses come this many reads apart.
READS = 32


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, I64.as_pointer())


@intrinsic
def read(typingctx: Any, address: Any) -> Any:
    """Atomic load, sequentially consistent."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_word(builder, args[0]), "seq_cst", 8)

    return types.intp(types.intp), codegen


@intrinsic
def write(typingctx: Any, address: Any, value: Any) -> Any:
    """Atomic store, sequentially consistent."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _word(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def increment(typingctx: Any, address: Any) -> Any:
    """Atomically add 1; the value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _word(builder, args[0]), ir.Constant(I64, 1), "seq_cst")

    return types.intp(types.intp), codegen


@intrinsic
def exchange(typingctx: Any, address: Any, value: Any) -> Any:
    """Atomically put a value; the value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", _word(builder, args[0]), args[1], "seq_cst")

    return types.intp(types.intp, types.intp), codegen


@intrinsic
def replace(typingctx: Any, address: Any, old: Any, new: Any) -> Any:
    """Atomically put `new` where `old` is; whether it was."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pair = builder.cmpxchg(_word(builder, args[0]), args[1], args[2], "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(pair, 1), I64)

    return types.intp(types.intp, types.intp, types.intp), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tell the processor that this is a spin loop."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        triple = llvm.get_process_triple()
        if triple.startswith("x86_64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif triple.startswith(("aarch64", "arm64")):
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint")
            builder.call(hint, [ir.Constant(ir.IntType(32), 1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def offer(typingctx: Any) -> Any:
    """Let another thread run on this processor."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = "SwitchToThread" if "windows" in llvm.get_process_triple() else "sched_yield"
        kind = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call(typingctx: Any, address: Any, block: Any, thread: Any, again: Any, begin: Any, end: Any, parts: Any) -> Any:
    """Call a compiled kernel."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] * 6)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), codegen


@leaf
def _deal(mailbox, row, threads):  # type: ignore[no-untyped-def]
    """Give every thread its range of a step's parts."""
    active, parts = min(threads, i64(row, 2)), i64(row, 4)
    if active > 1:
        for t in range(active):
            write(mailbox + LEFT + t * LINE, parts * t // active << 32 | parts * (t + 1) // active)


@leaf
def _take(word, own):  # type: ignore[no-untyped-def]
    """Take half of what is left of a range, at least one part: the front of one's own, the end of another's.

    The parts taken, first << 32 | the one after the last; 0 if none is left.
    """
    while True:
        left = read(word)
        first, last = left >> 32, left & LOW
        if first >= last:
            return 0
        some = (last - first + 1) // 2
        if own:
            if replace(word, left, first + some << 32 | last) != 0:
                return first << 32 | first + some
        elif replace(word, left, first << 32 | last - some) != 0:
            return last - some << 32 | last


@leaf
def _share(mailbox, row, thread, active):  # type: ignore[no-untyped-def]
    """Compute parts of a step until none is left: one's own, then those of the threads that come next."""
    again = 0
    for t in range(active):
        word = mailbox + LEFT + (thread + t) % active * LINE
        some = _take(word, t == 0)
        while some != 0:
            call(i64(row, 0), i64(row, 1), thread, again, some >> 32, some & LOW, i64(row, 4))
            again = 1
            some = _take(word, t == 0)


@leaf
def _barrier(mailbox, threads, row, more):  # type: ignore[no-untyped-def]
    phase = read(mailbox + PHASE)
    if increment(mailbox + ARRIVED) == threads - 1:
        if more:
            _deal(mailbox, row, threads)
        write(mailbox + ARRIVED, 0)
        write(mailbox + PHASE, phase + 1)
    else:
        spins = 0
        while read(mailbox + PHASE) == phase:
            spins += 1
            if spins % READS == 0:
                pause()
                if spins > PATIENCE:
                    offer()


@leaf
def _walk(mailbox, table, steps, thread, threads):  # type: ignore[no-untyped-def]
    for s in range(steps):
        row = table + ROW_BYTES * s
        active = min(threads, i64(row, 2))
        if active > 1:
            if thread < active:
                _share(mailbox, row, thread, active)
        elif thread == 0:
            call(i64(row, 0), i64(row, 1), 0, 0, 0, 1, 1)
        if threads > 1 and i64(row, 3) != 0:
            _barrier(mailbox, threads, row + ROW_BYTES, s + 1 < steps)


def make_each() -> Callable[..., None]:
    """Tables that have nothing to do with each other: each is walked by one thread; (table, steps) at `tables`."""

    def each(begin, end, parts, tables, count):  # type: ignore[no-untyped-def]
        for i in range(count * begin // parts, count * end // parts):
            _walk(0, i64(tables, 2 * i), i64(tables, 2 * i + 1), 0, 1)

    return each


def make_run() -> Callable[..., None]:
    """run(mailbox, table, steps, threads, posted, out): the caller's side, as thread 0.

    With posted = 0 the call is announced first; if workers were parked, their bit mask is stored at `out` and nothing
    has run yet: wake them and call again with posted = 1. Otherwise 0 is stored and the work is done.
    """

    def run(mailbox, table, steps, threads, posted, out):  # type: ignore[no-untyped-def]
        write(out, 0)
        if threads > 1 and posted == 0:
            increment(mailbox + TICKET)
            _deal(mailbox, table, threads)
            write(mailbox + TABLE, table)
            write(mailbox + STEPS, steps)
            write(mailbox + THREADS, threads)
            increment(mailbox + TICKET)
            parked = 0
            for t in range(1, threads):
                if exchange(mailbox + STATE + t * LINE, AWAKE) == PARKED:
                    parked |= 1 << t
            if parked != 0:
                write(out, parked)
                return
        _walk(mailbox, table, steps, 0, threads)

    return run


def make_serve() -> Callable[..., None]:
    """serve(mailbox, thread, seen): a worker's side; returns when parked, the last ticket stored at `seen`."""

    def serve(mailbox, thread, seen):  # type: ignore[no-untyped-def]
        last = read(seen)
        spins = 0
        while True:
            ticket = read(mailbox + TICKET)
            if ticket != last and ticket % 2 == 0:
                table, steps, threads = read(mailbox + TABLE), read(mailbox + STEPS), read(mailbox + THREADS)
                if (
                    read(mailbox + TICKET) == ticket
                ):  # else a later call is being written: this thread had no part in it
                    last = ticket
                    if thread < threads:
                        _walk(mailbox, table, steps, thread, threads)
                spins = 0
            elif spins < SPINS:
                spins += 1
                if spins % READS == 0:
                    pause()
            else:
                write(mailbox + STATE + thread * LINE, PARKED)
                if read(mailbox + TICKET) == last or exchange(mailbox + STATE + thread * LINE, AWAKE) == AWAKE:
                    write(seen, last)
                    return
                spins = 0

    return serve
