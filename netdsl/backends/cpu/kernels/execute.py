"""The executor: walks a table of steps on every thread of a team, with a barrier where a step needs one.

A table row is four int64: kernel address, argument-block address, how many threads may share the step, and whether a
barrier follows. The mailbox is shared memory of int64, each word on a cache line of its own:

    0 ticket    counts up twice a call: odd while the call is being written, even when it may be read
    1 arrived   threads at the barrier
    2 phase     counts barriers passed
    3 table     of the current call
    4 steps     rows of the table
    5 threads   team size of the current call
    8 + t       state of worker t: AWAKE or PARKED

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

from netdsl.backends.cpu.simd import I64, i64, leaf

LINE = 64  # bytes; a cache line on every processor of interest
TICKET, ARRIVED, PHASE, TABLE, STEPS, THREADS, STATE = 0, LINE, 2 * LINE, 3 * LINE, 4 * LINE, 5 * LINE, 8 * LINE
AWAKE, PARKED = 0, 1
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
def call(typingctx: Any, address: Any, arguments: Any, thread: Any, threads: Any) -> Any:
    """Call a compiled kernel."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@leaf
def _barrier(mailbox, threads):  # type: ignore[no-untyped-def]
    phase = read(mailbox + PHASE)
    if increment(mailbox + ARRIVED) == threads - 1:
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
        active = min(threads, i64(table, 4 * s + 2))
        if thread < active:
            call(i64(table, 4 * s), i64(table, 4 * s + 1), thread, active)
        if threads > 1 and i64(table, 4 * s + 3) != 0:
            _barrier(mailbox, threads)


def make_each() -> Callable[..., None]:
    """Tables that have nothing to do with each other: each is walked by one thread; (table, steps) at `tables`."""

    def each(tid, nt, tables, parts):  # type: ignore[no-untyped-def]
        for part in range(parts * tid // nt, parts * (tid + 1) // nt):
            _walk(0, i64(tables, 2 * part), i64(tables, 2 * part + 1), 0, 1)

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
