"""Times of steps, and the measured roof. Nothing here asserts how long anything takes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import netdsl
from netdsl.backends.cpu import machine, profile
from netdsl.errors import DeviceError, InputError
from netdsl.profiles import Profile, Roof
from netdsl.weights import random_weights

TEXT = """netdsl 1
net small() {
  input image 3x20x20
  conv 32 3x3 pad=1 | relu
  conv 32 3x3 pad=1 | relu
  depthwise 3x3 pad=1
  maxpool 2x2 | flatten
  dense 7
}
"""


def compiled(source: str = TEXT, **how: Any) -> netdsl.Model:
    return netdsl.compile(source, random_weights(netdsl.build(source)), **how)


@pytest.fixture(scope="module")
def found() -> Profile:
    model = compiled(threads=2)
    return model.profile(np.zeros((2, 3, 20, 20), np.float32), rounds=2)


def test_every_multiplication_is_somewhere(found: Profile) -> None:
    assert found.macs == 2 * netdsl.build(TEXT).macs
    assert {step.op for step in found if step.macs} == {"conv", "dense"}


def test_shares_are_parts_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = profile.Stepper.steps
    monkeypatch.setattr(profile.Stepper, "steps", lambda self: [*map(float, range(len(steps(self))))])
    found = compiled(threads=1).profile(np.zeros((1, 3, 20, 20), np.float32), rounds=1)
    count = len(found)
    assert [step.share for step in found] == [pytest.approx(i / (count * (count - 1) / 2)) for i in range(count)]
    assert found.seconds > 0


def test_steps_too_short_for_the_clock_have_no_part_in_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = profile.Stepper.steps
    monkeypatch.setattr(profile.Stepper, "steps", lambda self: [0.0 for _ in steps(self)])
    found = compiled(threads=1).profile(np.zeros((1, 3, 20, 20), np.float32), rounds=1)
    assert {(step.share, step.part, step.flops) for step in found} == {(0, 0, 0)} and str(found)


def test_bytes_are_those_of_weights_inputs_and_results(found: Profile) -> None:
    dense = next(step for step in found if step.op == "dense" and step.macs)
    least = 4 * (7 * 3200 + 7 + 2 * 3200 + 2 * 7)
    assert least <= dense.bytes <= 5 * least  # seven outputs may fill a wider vector


def test_as_text_html_and_data(found: Profile) -> None:
    lines = str(found).splitlines()
    assert lines[0] == "small"
    assert lines[1].split()[:2] == ["layer", "kernel"]
    assert len(lines) == 1 + 2 + len(found) + len(found.totals())
    page = found._repr_html_()
    assert page.count("<tr>") == 1 + len(found)
    record: dict[str, Any] = json.loads(json.dumps(found.as_dict()))
    assert record["network"] == "small" and record["batch"] == 2 and record["rounds"] == 2
    assert [s["path"] for s in record["steps"]] == [s.path for s in found]
    assert record["machine"]["flops"] > 0


def test_a_trace_has_every_step_in_order(found: Profile) -> None:
    events = [e for e in found.trace()["traceEvents"] if e["ph"] == "X" and e["tid"] == 0]
    assert [e["name"] for e in events] == [s.path for s in found]
    for one, other in pairwise(events):
        assert other["ts"] == pytest.approx(one["ts"] + one["dur"])


def test_a_batch_that_goes_in_turns_is_profiled_by_its_first() -> None:
    model = compiled("lenet5")
    found = model.profile(np.zeros((40, 1, 32, 32), np.float32), rounds=1)
    assert found.images == 16


def test_what_cannot_be_profiled() -> None:
    with pytest.raises(DeviceError, match="reference device has no kernels"):
        compiled(device="reference").profile(np.zeros((1, 3, 20, 20)))
    model = compiled()
    with pytest.raises(InputError, match="no images"):
        model.profile(np.zeros((0, 3, 20, 20), np.float32))
    with pytest.raises(InputError, match="rounds"):
        model.profile(np.zeros((1, 3, 20, 20), np.float32), rounds=0)
    with pytest.raises(InputError):
        model.profile(np.zeros((1, 3, 9, 9), np.float32))


def test_the_peak_is_measured_between_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is half as fast for most rounds is judged by what it did then."""
    steps, happened, peaks = profile.Stepper.steps, [], iter([8e9, 4e9, 4e9])

    def peak_meter(threads: int) -> Any:
        return lambda: happened.append(f"peak of {threads}") or next(peaks)

    def stepped(self: profile.Stepper) -> list[float]:
        happened.append("steps")
        return [1e-3] * len(steps(self))

    monkeypatch.setattr(profile, "peak_meter", peak_meter)
    monkeypatch.setattr(profile.Stepper, "steps", stepped)
    found = compiled(threads=1).profile(np.zeros((1, 3, 20, 20), np.float32), rounds=3)
    assert happened == ["peak of 1", "steps", "steps"] * 3  # of the steps, once to warm up
    assert found.roof.flops == found.as_dict()["machine"]["flops"] == 4e9
    assert [step.part for step in found] == [pytest.approx(2 * step.macs / 1e-3 / 4e9) for step in found]


def test_many_rounds_take_no_more_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[float] = []
    monkeypatch.setattr(profile, "peak_meter", lambda threads: lambda: measured.append(1e9) or 1e9)
    compiled("lenet5").profile(np.zeros((1, 1, 32, 32), np.float32), rounds=200)
    assert len(measured) == profile.MOST_PEAKS


def test_what_the_machine_can_do() -> None:
    assert all(machine.peak_meter(threads)() > 0 for threads in (1, 2))
    assert machine.bandwidth(1) == machine.bandwidth(1) > 0  # measured once in a process


def test_the_roof_bends_where_bytes_and_flops_meet() -> None:
    roof = Roof(1, flops=100.0, bandwidth=10.0)
    assert (roof.at(1), roof.at(10), roof.at(1000)) == (10, 100, 100)
