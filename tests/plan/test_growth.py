"""Building, rewriting and planning grow with the number of layers, not with its square."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from netdsl.backends.cpu.ahead import plan_ahead
from netdsl.graph.build import build

BODIES = {
    "residual": "residual { conv 16 3x3 pad=1 | batchnorm | relu | conv 16 3x3 pad=1 | batchnorm }\n relu",
    "dense block": "branches concat { skip\n batchnorm | relu | conv 16 3x3 pad=1 }\n conv 16 1x1",
    "linear": "1x1 16\n residual { conv 16 3x3 pad=1 }",
    "chain": "depthwise 3x3 pad=1 | batchnorm | relu6 | conv 16 1x1 | batchnorm | maxpool 3x3 pad=1",
}


def lines(body: str, count: int) -> int:
    """Lines of Python that are run to plan a network of so many bodies."""
    text = f"netdsl 1\nnet deep {{\n  input x 16x8x8\n  repeat {count} {{\n {body}\n }}\n}}\n"
    total = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal total
        total += event == "line"
        return trace

    sys.settrace(trace)
    try:
        plan_ahead(build(text), threads=2)
    finally:
        sys.settrace(None)
    return total


@pytest.mark.parametrize("name", BODIES)
def test_planning_takes_steps_in_proportion_to_layers(name: str) -> None:
    lines(BODIES[name], 5)  # imports, and choices that are kept by shape
    few, some, many = (lines(BODIES[name], n) for n in (10, 30, 90))
    assert 0 < many - some < 3.6 * (some - few)
