"""What is packed of the weights: once, by however many threads, and where it fails the error is heard."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

from netdsl.backends import cpu
from netdsl.backends.cpu import bank as banks
from netdsl.backends.cpu.bank import SLAB_FLOATS, Rows, WeightBank
from netdsl.errors import WeightsError
from netdsl.graph.build import build
from netdsl.passes import rewrite
from netdsl.weights import random_weights

THREADS = pytest.mark.parametrize("threads", [1, 2, 3, 64])


@THREADS
def test_everything_is_packed_once_each_on_its_own_cache_line(threads: int) -> None:
    bank, made = WeightBank({}), []

    def make(i: int) -> np.ndarray:
        made.append(i)
        time.sleep(0.001)  # so that the others take a part
        if i % 2:
            bank.empty(1 + i)[:] = i
            place = bank.empty(5 * i)
            place[:] = i
            return place
        return np.full((i, 5), i, np.float32).T

    data = [bank.pack((i,), lambda i=i: make(i)) for i in range(1, 40)]  # type: ignore[misc]
    assert made == []
    bank.finish(threads)
    assert sorted(made) == list(range(1, 40))
    starts = [d.values.ctypes.data for d in data]
    assert all(start % 64 == 0 for start in starts) and len(set(starts)) == len(starts)
    for i, d in enumerate(data, 1):
        assert d.values.size == 5 * i and (d.values == i).all() and d.values.flags.c_contiguous
    bank.finish(threads)
    assert len(made) == 39 and bank.pack((7,), lambda: np.zeros(1, np.float32)) is data[6]


def test_what_is_larger_than_a_slab_has_its_own() -> None:
    bank = WeightBank({})
    data = bank.pack(("large",), lambda: np.ones(SLAB_FLOATS + 5, np.float32))
    assert (data.values == 1).all() and data.values.size == SLAB_FLOATS + 5


def test_what_is_asked_for_early_is_packed_then() -> None:
    bank, made = WeightBank({}), []
    data = bank.pack(("a",), lambda: made.append(1) or np.ones(3, np.float32))  # type: ignore[func-returns-value]
    assert data.values.sum() == 3 and made == [1]
    bank.finish(2)
    assert made == [1]


@THREADS
def test_the_first_error_is_heard(threads: int) -> None:
    bank = WeightBank({})

    def fail(i: int) -> np.ndarray:
        if i % 10 == 9:
            raise WeightsError(f"number {i}", code="weights-range")
        return np.ones(4, np.float32)

    for i in range(40):
        bank.pack((i,), lambda i=i: fail(i))  # type: ignore[misc]
    with pytest.raises(WeightsError, match=r"number 9$"):
        bank.finish(threads)


def test_two_callers_at_a_time_get_the_same() -> None:
    bank, made, seen = WeightBank({}), [], []

    def make() -> np.ndarray:
        made.append(1)
        time.sleep(0.01)
        return np.ones(3, np.float32)

    data = bank.pack(("a",), make)
    callers = [threading.Thread(target=lambda: seen.append(data.values.ctypes.data)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert made == [1] and len(seen) == 4 and len(set(seen)) == 1


def _answer(program: cpu.Program, x: np.ndarray, expected: np.ndarray, queue: object) -> None:
    queue.put(np.array_equal(program([x])[0], expected))  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_packs_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build("netdsl 1\nnet a {\n  input x 20x5x7\n  conv 21 3x3 | relu\n}\n")
    weights, x = random_weights(graph), np.ones((2, 20, 5, 7), np.float32)
    (expected,) = cpu.lower(graph, weights, 1)([x])
    aligned, packing, go_on = banks.aligned, threading.Event(), threading.Event()

    def stopped(count: int) -> np.ndarray:
        if threading.current_thread() is packer:  # which holds the locks of what it packs and of the slabs
            packing.set()
            go_on.wait(60)
        return aligned(count)

    program = cpu.lower(graph, weights, 1)
    bank = program._bank = WeightBank(weights)
    program._plans.clear()
    packer, answers = threading.Thread(target=lambda: answers.append(program([x])[0])), []
    monkeypatch.setattr(banks, "aligned", stopped)
    packer.start()
    assert packing.wait(60) and bank._placing.locked()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_answer, args=(program, x, expected, queue), daemon=True)
    child.start()
    try:
        assert queue.get(timeout=60)
    finally:
        go_on.set()
        packer.join(60)
        child.kill()
        child.join(60)
    assert np.array_equal(answers[0], expected)  # and the parent goes on


BODIES = {  # and whether rows of the first weight are taken as they are needed
    "conv 21 3x3": True,
    "conv 21 3x3 bias=no | batchnorm | relu": True,
    "conv 21 3x3 | scale | batchnorm | scale bias=no": True,
    "conv 20 3x3 groups=4 | batchnorm": True,
    "flatten | dense 30 | relu": True,
    "deconv 21 3x3 | batchnorm": False,  # outputs are its second axis
    "batchnorm | conv 21 3x3": False,
    "kernel [[1,2],[3,4]] | batchnorm": False,
}


@pytest.mark.parametrize("body", BODIES)
def test_rows_are_those_of_the_whole_weight(body: str) -> None:
    graph = build(f"netdsl 1\nnet a {{\n  input x 20x5x7\n  {body}\n}}\n")
    bank = WeightBank(random_weights(graph))
    node = next(n for n in rewrite(graph).nodes if "weight" in n.weights)
    rows, whole = bank.rows(node, "weight"), bank.required(node, "weight")
    assert isinstance(rows, Rows) == BODIES[body]
    assert len(rows) == len(whole) and rows.shape == whole.shape
    for first, last in ((0, 16), (7, 8), (16, 32), (0, len(whole))):
        taken = rows[first:last]
        assert taken.dtype == np.float32 and np.array_equal(taken, whole[first:last])
