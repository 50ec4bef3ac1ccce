"""Each program under bench/, with the fewest rounds on a tiny network: it runs, and its record has what it should.

Nothing here asserts how long anything takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import algebra
import choices
import half
import ladder
import memory
import peers
import records
import scaling
import startup
from netdsl import passes
from netdsl.backends.cpu.threads import available_threads
from netdsl.benchmark import Comparison

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")


def written(path: Path) -> records.Record:
    """A results file, with what all of them hold checked."""
    record = json.loads(path.read_text(encoding="utf-8"))
    assert set(record) >= {"command", "commit", "machine", "results"}
    assert {"processor", "processors", "system", "python", "versions", "date"} <= set(record["machine"])
    assert record["results"]
    return record


def test_peers(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "peers.json"
    told = ["--networks", tiny, "--batch", "1,2", "--rounds", "2", "--threads", "1", "--peers", "onnxruntime"]
    peers.main([*told, "--out", str(out)])
    record = written(out)
    assert (record["threads"], record["rounds"], record["means"]) == (1, 2, [])
    found = [Comparison.from_dict(r) for r in record["results"]]
    assert [(c.network, c.batch) for c in found] == [(tiny, 1), (tiny, 2)]
    assert all(c.best[0] == "onnxruntime" and c.threads == 1 for c in found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-2:] == ["ratio", "target"] and len(lines) == 3


def test_a_peer_that_takes_its_process_down_is_left_out(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = subprocess.run

    def run(command: list[str], **how: object) -> object:
        if "openvino" in command[-1]:
            return subprocess.CompletedProcess(command, -11, "", "")
        return honest(command, **how)

    monkeypatch.setattr(peers.subprocess, "run", run)
    (record,) = peers.measured(peers.Workload(tiny), [1], ["onnxruntime", "openvino"], 1, 1)
    own, other, lost = Comparison.from_dict(record).outcomes
    assert own.median and other.median
    assert (lost.engine, lost.median, lost.reason) == ("openvino", None, "its process ended with status -11")


def test_startup(tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "startup.json"
    startup.main(["--network", tiny, "--threads", "1", "--runs", "1", "--out", str(out)])
    what = [r["what"] for r in written(out)["results"]]
    assert what == ["netdsl run, first ever", "netdsl run, later", "ONNX Runtime", "import netdsl", "Python alone"]
    assert all(r["seconds"] > 0 and len(r["runs"]) == 1 for r in written(out)["results"])


def test_memory(tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    memory.main(["--networks", tiny, "--threads", "1", "--out", str(out)])
    (result,) = written(out)["results"]
    assert result["netdsl"] > 1 << 20 and result["onnxruntime"] > 1 << 20
    assert result["ratio"] == result["netdsl"] / result["onnxruntime"]
    assert result["arena"] > 0 and result["weights"] > 0


def test_scaling(tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    scaling.main(["--networks", tiny, "--callers", "3", "--rounds", "1", "--seconds", "0.05", "--out", str(out)])
    (result,) = written(out)["results"]
    assert result["callers"] == 3 and result["speedup"] > 0 and result["throughput"] > 0
    assert result["machine_speedup"] > 0


def test_threads_stand_beside_what_the_machine_gives() -> None:
    """Two threads give 1.5 times as much, the machine 1.6 times, however fast it is in a round."""
    slow = [1.0, 3.0, 0.5, 7.0, 1.0]
    times = {"one": [3 * s for s in slow], "all": [2 * s for s in slow],
             "peak of one": [8 * s for s in slow], "peak of all": [10 * s for s in slow]}  # fmt: skip
    found = scaling.of_threads(times, 2)
    assert found["seconds_one_thread"] == 3 and found["seconds_all_threads"] == 2
    assert found["speedup"] == 1.5 and found["machine_speedup"] == pytest.approx(1.6)


def test_ratios_are_those_of_the_same_round() -> None:
    """The machine slowed down twice, between and within rounds."""
    assert scaling.of_callers([(100, 150), (50, 75), (50, 30)]) == {
        "images_per_second_one_caller": 50, "images_per_second_all_callers": 75, "throughput": 1.5,
    }  # fmt: skip
    one, all_ = [1.0, 1.0, 6.0, 8.0, 8.0], [0.5, 0.5, 4.0, 4.0, 4.0]
    assert scaling.of_threads({"one": one, "all": all_, "peak of one": one, "peak of all": all_}, 2)["speedup"] == 2


def test_every_caller_is_timed_for_a_call_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that comes to it when the time is over, as on a busy machine."""
    over = types.SimpleNamespace(set=lambda: None, is_set=lambda: True)
    replaced = types.SimpleNamespace(Thread=threading.Thread, Barrier=threading.Barrier, Event=lambda: over)
    monkeypatch.setattr(scaling, "threading", replaced)
    called: list[int] = []
    assert scaling.throughput(called.append, [0], callers=3, seconds=0) > 0  # type: ignore[arg-type]
    assert len(called) == 3 + 3


def test_calls_and_peaks_of_one_thread_and_of_all_take_turns(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def interleave(calls: dict[str, object], rounds: int, seconds: float) -> dict[str, list[float]]:
        taken.extend(calls)
        return {name: [1.0] * rounds for name in calls}

    monkeypatch.setattr(scaling, "interleave", interleave)
    assert scaling.measure(tiny, 1, 2, 0.01)["machine_speedup"] == available_threads()
    assert taken == ["one", "peak of one", "all", "peak of all"]


def test_half(tmp_path: Path) -> None:
    net, out = tmp_path / "wide.net", tmp_path / "half.json"
    net.write_text("netdsl 1\nnet wide {\n  input x 512x1x1\n  flatten | dense 512\n}\n")
    given = ["--networks", str(net), "--batch", "1", "--threads", "1", "--rounds", "1", "--out", str(out)]
    half.main(given)
    results = written(out)["results"]
    named = [(r["engine"], r["precision"]) for r in results]
    assert named == [*(("netdsl", p) for p in half.PRECISIONS), ("onnxruntime", "float32")]
    assert all(r["seconds"] > 0 and r["ratio"] > 0 for r in results)
    exact, rounded = results[0], results[1]
    assert exact["difference"] == 0 and 0 < rounded["difference"] < 1e-2 and rounded["dense_seconds"] > 0
    assert rounded["weights"] == "weights of 1 layer as bfloat16, 0.524 MB instead of 1.05 MB"


def test_an_answer_in_16_bits_that_is_far_off_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "difference", lambda found, expected: 0.02)
    with pytest.raises(SystemExit, match=r"lenet5: float32 is wrong by 2\.0e-02"):
        half.measure("lenet5", 1, 1, (), 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind threads to processors")
def test_the_ladder_stays_on_the_processor_with_the_highest_peak() -> None:
    allowed = os.sched_getaffinity(0)
    last = max(allowed)
    with ladder.on_the_fastest(lambda: float(os.sched_getaffinity(0) == {last})):
        assert os.sched_getaffinity(0) == {last}
    assert os.sched_getaffinity(0) == allowed


def test_ladder(tmp_path: Path) -> None:
    out = tmp_path / "ladder.json"
    ladder.main(["--convolutions", "16x6", "--rounds", "1", "--out", str(out)])
    record = written(out)
    assert [r["rung"] for r in record["results"]] == [*ladder.LOWER, *ladder.UPPER]
    assert all(0 <= r["error"] <= 1e-4 and r["flops"] > 0 for r in record["results"])
    assert record["roof"]["flops"] == np.median([r["peak"] for r in record["results"]]) and record["roof"]["bandwidth"]


def test_a_convolution_too_short_for_the_clock_has_a_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ladder.Stepper.steps
    monkeypatch.setattr(ladder.Stepper, "steps", lambda self: [0.0 for _ in steps(self)])
    assert all(0 < r["flops"] < np.inf for r in ladder.measure(16, 6, 1))


def test_rungs_take_turns_each_beside_a_peak_of_its_own() -> None:
    happened: list[str] = []
    numbers = iter(range(1, 100))

    def clock(name: str) -> ladder.Clock:
        return lambda: happened.append(name) or float(next(numbers))

    found = ladder.in_turns({"low": clock("low"), "high": clock("high")}, clock("peak"), 2)
    assert happened == ["peak", "low", "low", "peak", "high", "high"] * 2
    assert found == {"low": [(3, 1), (9, 7)], "high": [(6, 4), (12, 10)]}


def test_the_part_of_the_peak_does_not_depend_on_the_machines_speed() -> None:
    """Every round, or every one but a few, runs at half of its peak, however fast the machine is then."""
    samples = [(1.0, 100.0), (2.0, 50.0), (0.5, 200.0), (4.0, 25.0), (0.25, 400.0)]
    assert ladder.speeds(50, samples) == {"seconds": 1, "flops": 50, "peak": 100, "part_of_peak": 0.5}
    slow_peaks = [(1.0, 100.0), (1.0, 100.0), (3.0, 100.0), (4.0, 25.0), (4.0, 25.0)]
    assert ladder.speeds(50, slow_peaks)["part_of_peak"] == 0.5 != 50 / 3 / 100


def test_algebra(tmp_path: Path) -> None:
    out = tmp_path / "algebra.json"
    algebra.main(["--cases", "then dense;then scale", "--rounds", "1", "--threads", "1", "--out", str(out)])
    chain, norm = written(out)["results"]
    assert (chain["rewrite"], norm["rewrite"], chain["threads"]) == ("merge_chains", "fold_forward", 1)
    assert chain["macs_with"] < chain["macs_without"] and norm["nodes_with"] < norm["nodes_without"]
    assert all(r["error"] <= 1e-4 and r["ratio"] > 0 for r in (chain, norm))


@pytest.mark.parametrize("case", algebra.CASES, ids=lambda case: case.name)
def test_every_rewrite_that_is_measured_changes_its_network(case: algebra.Case) -> None:
    with algebra.without(case.rewrite):
        plain = passes.rewrite(case.graph)
    rewritten = passes.rewrite(case.graph)
    assert len(rewritten.nodes) < len(plain.nodes) and rewritten.macs <= plain.macs


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        algebra.main(["--cases", "nothing of the kind"])
    assert "no case has nothing of the kind in its name; there are 3x3, then 1x1;" in capsys.readouterr().err


@pytest.mark.parametrize("m", [0, 2, 4, 6])
def test_the_upper_rungs_run_the_kernel_they_name(m: int) -> None:
    case = ladder.case_of(16, 6)
    (kernel,) = [s.kernel for s in ladder.program(case, m).plan(1).steps if s.kernel.module in ("conv", "winograd")]
    assert (kernel.module, kernel.constants[0] if m else 0) == ("winograd" if m else "conv", m)


def test_a_wrong_rung_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ladder.LOWER, "seven loops in Numba", lambda case: lambda: np.zeros((16, 6, 6), np.float32))
    with pytest.raises(SystemExit, match="seven loops in Numba is wrong by"):
        ladder.measure(16, 6, 1)


def test_without_out_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scaling.main(["--networks", "lenet5", "--callers", "1", "--rounds", "1", "--seconds", "0.01"])
    assert not list(tmp_path.iterdir())


def test_a_program_that_fails_says_how() -> None:
    with pytest.raises(SystemExit, match=r"(?s)ended with status 3.*no such thing"):
        records.checked([sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"])


def test_results_that_are_not_there() -> None:
    with pytest.raises(SystemExit, match="measure it first"):
        records.read(Path("nowhere.json"))


@pytest.mark.skipif(available_threads() < 2, reason="one processor: no work to share")
def test_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "TURN_SECONDS", 0.001)
    before = [str(choice.committed) for choice in choices.CHOICES]
    out = tmp_path / "choices.json"
    told = ["--constants", "SPAN_BYTES,WORK_TO_SHARE", "--networks", "lenet5", "--rounds", "3"]
    choices.main([*told, "--out", str(out)])
    assert [str(choice.committed) for choice in choices.CHOICES] == before
    results = written(out)["results"]
    assert [(r["constant"], r["other"]) for r in results] == [
        *(("lower_linear.SPAN_BYTES", other) for other in ("0", "8192", "16384", "32768")),
        *(("program.WORK_TO_SHARE", other) for other in ("0", "30000000")),
    ]
    (timed,) = [r for r in results if r["other"] == "0" and "SHARE" in r["constant"]]
    assert not timed["same_plan"] and timed["quartiles"][0] <= timed["ratio"] <= timed["quartiles"][1]
    assert results[-1]["same_plan"] and results[-1]["ratio"] is None
    assert "same plan" in capsys.readouterr().out


def test_a_constant_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        choices.main(["--constants", "SPAN"])
    assert "there is no constant SPAN" in capsys.readouterr().err
