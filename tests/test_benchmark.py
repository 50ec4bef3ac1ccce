"""Comparing engines: who takes part, whose answer counts, what a record holds. Nothing here asserts a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

import netdsl
from netdsl import benchmark, peers
from netdsl.benchmark import Comparison, Outcome, Rules, compare, geometric_means
from netdsl.errors import DeviceError, InputError
from netdsl.peers import PEERS, Call, Peer, Task, Unable, difference
from netdsl.weights import random_weights

TEXT = """netdsl 1
net two(classes=3) {
  input image 3x8x9
  conv 4 3x3 pad=1 | relu
  output map
  avgpool global | flatten
  dense classes
  output scores
}
"""
QUICK = Rules(threads=1, rounds=2, seconds=0.0)


class Fake(Peer):
    """An engine that answers as it is told to."""

    packages = modules = ("numpy",)
    settings = ""

    def __init__(self, name: str, call: Callable[[Task], list[np.ndarray]]) -> None:
        self.name = self.title = name
        self.call = call

    def prepare(self, task: Task) -> Call:
        return lambda: self.call(task)


def right(task: Task) -> list[np.ndarray]:
    found = netdsl.compile(task.graph, task.weights, "reference")(*task.inputs)
    return list(found.values())


def wrong(task: Task) -> list[np.ndarray]:
    return [y + 1e-3 * np.abs(y).max() for y in right(task)]


def broken(task: Task) -> list[np.ndarray]:
    raise OSError("no\nmemory")


def unable(task: Task) -> list[np.ndarray]:
    raise Unable("it knows no convolution")


def compared(*engines: Peer, batch: int = 2) -> Comparison:
    graph = netdsl.build(TEXT)
    return compare(graph, random_weights(graph), batch, engines, rules=QUICK)


@pytest.mark.parametrize("peer", PEERS, ids=lambda p: p.name)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_engine_that_is_installed_gives_the_same_answer(peer: Peer, batch: int) -> None:
    if peers.missing(peer):
        pytest.skip(f"{peer.title} is not installed")
    own, outcome = compared(peer, batch=batch).outcomes
    assert outcome.reason is None and outcome.difference < 1e-5
    for one in (own, outcome):
        assert 0 < one.low <= one.median <= one.high


def test_an_engine_with_another_answer_is_not_timed() -> None:
    comparison = compared(Fake("good", right), Fake("bad", wrong))
    good, bad = comparison.outcomes[1:]
    assert good.median and not good.wrong
    assert bad.median is None and bad.wrong and bad.reason == "its answer differs by 1.0e-03 of the largest value"
    assert set(comparison.ratios) == {"good"}


def test_nothing_is_timed_when_no_engine_agrees() -> None:
    comparison = compared(Fake("bad", wrong))
    assert comparison.own.median is None and "no engine agrees" in comparison.own.reason
    assert comparison.best is None and comparison.as_dict()["ratio"] is None


def test_an_engine_that_fails_is_left_out_with_its_reason() -> None:
    comparison = compared(Fake("broken", broken), Fake("unable", unable))
    assert [o.reason for o in comparison.outcomes] == [None, "OSError: no memory", "it knows no convolution"]
    assert comparison.own.median


def test_differences_are_relative_to_the_largest_value() -> None:
    one = np.array([1.0, -4.0])
    assert difference([one], [one]) == 0
    assert difference([np.array([1.0, -3.0])], [one]) == 0.25
    assert difference([np.array([1.0, np.nan])], [one]) == math.inf
    assert difference([np.zeros(3)], [one]) == math.inf
    assert difference([np.zeros(2)], [np.zeros(2)]) == 0
    assert difference([np.zeros((0, 2))], [np.zeros((0, 2))]) == 0


def test_engines_take_turns_in_changing_order() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name) or []) for name in "abc"}
    times = benchmark.interleave(calls, 4, 0.0)
    assert {name: len(t) for name, t in times.items()} == {"a": 4, "b": 4, "c": 4}
    turns = "".join(order[3 * benchmark.WARM_UP :][::2])  # each turn: once without the clock, once with it
    assert turns == "abcacbcabcba"


def test_a_record_can_be_read_again() -> None:
    comparison = compared(Fake("good", right), Fake("bad", wrong))
    record = json.loads(json.dumps(comparison.as_dict()))
    assert Comparison.from_dict(record) == comparison
    assert record["best_peer"] == "good" and record["ratio"] == pytest.approx(comparison.best[1])


def test_the_best_peer_counts_in_the_mean() -> None:
    def made(name: str, batch: int, **medians: float) -> Comparison:
        own = Outcome("netdsl", 1.0)
        return Comparison(name, ((3, 8, 8),), batch, "cpu", 1, 1, (own, *(Outcome(k, v) for k, v in medians.items())))

    some = [made("a", 1, x=4.0, y=2.0), made("b", 1, x=8.0), made("a", 8, y=3.0), made("c", 8)]
    assert some[0].best == ("y", 2.0)
    assert geometric_means(some) == {1: pytest.approx(4.0), 8: pytest.approx(3.0)}


def test_networks_batches_and_progress() -> None:
    told = []
    rows = list(benchmark.benchmark(["lenet5", TEXT], [], (1, 2), rules=QUICK, report=lambda *a: told.append(a)))
    assert [(c.network, c.batch) for c in rows] == [("lenet5", 1), ("lenet5", 2), ("two", 1), ("two", 2)]
    assert told[0] == ("lenet5, batch 1", 0, 4)
    assert benchmark.remarks(rows) == []


def test_unknown_and_missing_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did you mean openvino"):
        peers.choose(["openvin"])
    monkeypatch.setattr(peers, "PEERS", (Fake("here", right), Fake("away", right)))
    monkeypatch.setattr(peers.PEERS[1], "modules", ("no_such_module",), raising=False)
    assert [p.name for p in peers.installed()] == ["here"]
    with pytest.raises(DeviceError, match="pip install numpy"):
        peers.choose(["here", "away"])


def test_facts_name_the_machine_and_every_version() -> None:
    facts = benchmark.facts(peers.installed())
    assert facts["processor"] and facts["processors"] >= 1
    assert {"netdsl", "numba", *(p.name for p in peers.installed())} <= set(facts["versions"])
