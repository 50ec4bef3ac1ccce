"""Devices side by side: answers before times, who overtakes whom, what a record holds; nothing asserts a time."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import netdsl
from netdsl import lowerings
from netdsl.benchmark import Rules
from netdsl.errors import NetWarning
from netdsl.lowerings import Crossing, Run, SideBySide, Start, crossings
from netdsl.profiles import Phases

TEXT = """netdsl 1
net sums {
  input a 2x3x3
  flatten | dense 2
}
"""
QUICK = Rules(threads=1, rounds=2, seconds=0.0)


def made(first: dict[int, float], other: dict[int, float], phases: Phases | None = None) -> SideBySide:
    """A comparison of two devices with such times of a call by batch size."""
    runs = [Run("cpu", b, 0.0, t, t, t) for b, t in first.items()]
    runs += [Run("cuda", b, 1e-6, t, t, t, phases) for b, t in other.items()]
    return SideBySide("net", ((3, 8, 8),), 10, 2, {"cpu": "cpu", "cuda": "a card"}, 1,
                      {"cpu": Start(2.0, 0.5), "cuda": Start(30.0, 1.0)}, tuple(runs))  # fmt: skip


def found(first: dict[int, float], other: dict[int, float]) -> list[Crossing]:
    return list(crossings("cpu", first, "cuda", other))


def test_lines_cross_where_logarithms_meet() -> None:
    (crossing,) = found({1: 1.0, 16: 1.0}, {1: 4.0, 16: 0.25})
    assert crossing == Crossing(pytest.approx(4.0), "cuda", "cpu")
    (crossing,) = found({1: 1.0, 100: 8.0}, {1: 2.0, 100: 1.0})
    assert crossing.batch == pytest.approx(math.sqrt(math.sqrt(100)))  # a quarter of the way from -log 2 to 3 log 2


def test_lines_may_cross_back_and_may_touch() -> None:
    assert [(c.batch, c.faster) for c in found({1: 1, 4: 1, 16: 1}, {1: 2, 4: 0.5, 16: 2})] == [
        (pytest.approx(2), "cuda"), (pytest.approx(8), "cpu"),
    ]  # fmt: skip
    assert found({1: 1, 4: 1, 16: 1}, {1: 2, 4: 1, 16: 0.5}) == [Crossing(pytest.approx(4), "cuda", "cpu")]
    assert found({1: 1, 4: 1, 16: 1}, {1: 0.5, 4: 1, 16: 2}) == [Crossing(pytest.approx(4), "cpu", "cuda")]


def test_lines_apart_or_of_one_point_do_not_cross() -> None:
    assert found({1: 1, 8: 1}, {1: 2, 8: 3}) == found({1: 1}, {1: 2}) == found({}, {}) == []
    assert found({1: 1, 8: 1}, {1: 2, 16: 0.5}) == []  # only one batch size in common


def test_what_is_said_of_a_crossing() -> None:
    assert "net: from batch 4 on cuda takes less time an image than cpu" in lowerings.remarks(
        made({1: 1.0, 16: 16.0}, {1: 4.0, 16: 4.0})
    )
    assert "net: cpu is faster than cuda at every batch size measured" in lowerings.remarks(made({1: 1.0}, {1: 4.0}))
    assert lowerings.remarks(made({1: 1.0}, {1: 4.0}))[-1] == (
        "net on cuda: ready for batch 1 in 30.00 s, 1.00 s with kept kernels"
    )


def test_a_row_for_each_run() -> None:
    rows = lowerings.cells(made({8: 0.5}, {8: 0.25}, Phases(0.01, 0.2, 0.003)))
    assert rows == [
        ("net", "8", "cpu", "500", "500", "500", "16", "-", "-", "-"),
        ("net", "8", "cuda", "250", "250", "250", "32", "10", "200", "3"),
    ]
    assert all(len(row) == len(lowerings.HEADINGS) for row in rows)


def test_a_record_is_plain_data() -> None:
    record = json.loads(json.dumps(made({1: 1.0, 16: 16.0}, {1: 4.0, 16: 4.0}, Phases(1, 2, 3)).as_dict()))
    assert record["crossings"] == [{"batch": pytest.approx(4.0), "faster": "cuda", "slower": "cpu"}]
    assert record["starts"]["cuda"] == {"cold": 30.0, "warm": 1.0}
    assert record["runs"][-1]["phases"] == {"to_device": 1, "compute": 2, "from_device": 3}
    assert record["runs"][-1]["images_per_second"] == 4.0


def models(monkeypatch: pytest.MonkeyPatch, wrong: bool) -> dict[str, Any]:
    with pytest.warns(NetWarning):
        found = {device: netdsl.compile(TEXT, "random", device) for device in ("cpu", "reference")}
    if wrong:
        honest = type(found["cpu"]).__call__
        monkeypatch.setattr(
            type(found["cpu"]), "__call__", lambda self, x: honest(self, x) * (1.001 if self.device == "cpu" else 1)
        )
    return found


def test_answers_that_agree_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = lowerings.run(models(monkeypatch, wrong=False), 3, QUICK)
    assert [(r.device, r.batch, r.phases) for r in runs] == [("cpu", 3, None), ("reference", 3, None)]
    assert all(r.median and 0 < r.low <= r.median <= r.high and r.difference < 1e-6 for r in runs)  # type: ignore


def test_answers_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = lowerings.run(models(monkeypatch, wrong=True), 3, QUICK)
    assert first.median is other.median is None and other.throughput is None
    assert other.wrong and not first.wrong and other.difference == pytest.approx(1e-3, rel=0.01)
    whole = SideBySide("sums", (), 1, 1, {"cpu": "", "reference": ""}, 1, {}, (first, other))
    assert whole.wrong and whole.crossings == ()
    assert lowerings.remarks(whole) == [
        "sums, batch 3: the answer of reference differs from that of cpu by 1.0e-03 of the largest value: "
        "nothing was timed"
    ]
    assert all(cell == "-" for row in lowerings.cells(whole) for cell in row[3:])


def test_getting_ready_is_timed_in_fresh_processes_with_their_own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    caches: list[str] = []

    def spawned(cache: str, function: Any, *arguments: Any) -> float:
        assert function is lowerings.ready
        caches.append(cache)
        return float(len(caches))

    honest = lowerings._in_a_process
    monkeypatch.setattr(lowerings, "_in_a_process", spawned)
    graph = netdsl.build(TEXT)
    assert lowerings.start(graph, "reference", 1, QUICK) == Start(1.0, 2.0)
    assert caches[0] == caches[1]
    assert honest(caches[0], lowerings.ready, graph, "reference", 1, QUICK) > 0


def test_networks_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowerings, "start", lambda graph, device, batch, rules: Start(2.0, 1.0))
    told: list[tuple[str, int, int]] = []
    found = list(
        lowerings.side_by_side(
            [TEXT, "filters/identity"], ["reference", "cpu"], (1, 2), QUICK, report=lambda *a: told.append(a)
        )
    )
    assert [f.network for f in found] == ["sums", "identity"] and found[0].inputs == ((2, 3, 3),)
    assert [(r.device, r.batch) for r in found[1].runs] == [
        ("reference", 1), ("cpu", 1), ("reference", 2), ("cpu", 2),
    ]  # fmt: skip
    assert told == [(f"{n}, {w}", 3 * i + j, 6) for i, n in enumerate(("sums", "identity"))
                    for j, w in enumerate(("compiling", "batch 1", "batch 2"))]  # fmt: skip


def test_facts_say_which_card_took_part(monkeypatch: pytest.MonkeyPatch) -> None:
    from netdsl.backends.cuda import device

    monkeypatch.setattr(device, "facts", lambda: {"card": "a card"})
    assert "gpu" not in lowerings.facts(["cpu"]) and lowerings.facts(["cpu", "cuda"])["gpu"] == {"card": "a card"}
    assert np.isfinite(lowerings.facts(["cpu"])["processors"])
