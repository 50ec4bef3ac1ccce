"""Plots: well-formed SVG with everything in it that was given."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from netdsl.benchmark import Comparison, Outcome
from netdsl.lowerings import Run, SideBySide
from netdsl.peers import PEERS
from netdsl.plots import KINDS, crossover_plot, kind_of, plot_of_comparisons, roofline_plot, speed_plot
from netdsl.profiles import Profile, Roof, Timed

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            if key in element.attrib:
                assert 0 <= float(element.attrib[key]) <= width
        for key in ("y", "y1", "y2", "cy"):
            if key in element.attrib:
                assert 0 <= float(element.attrib[key]) <= height
    return root


def hints(root: ElementTree.Element) -> list[str]:
    return [t.text or "" for parent in root.iter() if parent.tag != f"{SVG}svg" for t in parent.findall(f"{SVG}title")]


@pytest.mark.parametrize("networks", [1, 3, 40])
def test_a_bar_for_each_network_and_peer(networks: int) -> None:
    ratios = {f"network number {i}": {"one": 0.5 + i, "other": 1.0} for i in range(networks)}
    root = parsed(speed_plot({"batch 1": ratios, "batch 8": ratios}, ["one", "other"], "a machine"))
    assert len(hints(root)) == 2 * 2 * networks
    assert "network number 0: 0.50 times as fast as one" in hints(root)


def test_a_peer_that_could_not_run_leaves_a_gap() -> None:
    root = parsed(speed_plot({"batch 1": {"a": {"one": 2.0}, "b": {}}}, ["one", "other"], ""))
    assert hints(root) == ["a: 2.00 times as fast as one"]


def test_nothing_to_draw_is_drawn_without_complaint() -> None:
    parsed(speed_plot({}, [], ""))


def test_the_plot_of_a_benchmark_names_versions() -> None:
    comparison = Comparison("a<b", ((3, 8, 8),), 1, "cpu", 2, 10, (Outcome("netdsl", 1.0), Outcome("onnxruntime", 3.0)))
    facts = {"versions": {"netdsl": "9", "onnxruntime": "1.2"}, "processor": "A & B"}
    svg = plot_of_comparisons([comparison], PEERS[:1], facts)
    assert hints(parsed(svg)) == ["a<b: 3.00 times as fast as ONNX Runtime 1.2"]
    assert "A &amp; B, 2 threads" in svg


def side(network: str, **times: dict[int, float]) -> SideBySide:
    runs = tuple(Run(device, b, 0.0, t, t, t) for device, line in times.items() for b, t in line.items())
    return SideBySide(network, (), 1, 2, {d: f"the {d} of a <machine>" for d in times}, 1, {}, runs)


def test_devices_as_the_batch_grows() -> None:
    both = side("one", cpu={1: 0.01, 8: 0.08, 64: 0.64}, cuda={1: 0.02, 8: 0.04, 64: 0.08})
    apart = side("two", cpu={1: 0.01, 64: 0.5}, cuda={1: 0.02, 64: 1.0})
    lone = side("three", cpu={4: 0.01}, cuda={4: 0.02})
    none = SideBySide("four", (), 1, 2, {"cpu": "", "cuda": ""}, 1, {}, (Run("cpu", 1), Run("cuda", 1, 0.5)))
    root = parsed(crossover_plot([both, apart, lone, none], "A & B"))
    assert len(hints(root)) == 6 + 4 + 2 and "one, batch 8, cuda: 5 ms an image" in hints(root)
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert texts.count("from 2.83 on cuda is faster") == 1 == sum("faster" in str(t) for t in texts)
    assert "cuda: the cuda of a <machine>" in texts and "A & B" in texts and "four" not in texts
    parsed(crossover_plot([none], ""))


def step(path: str, op: str, kernel: str, seconds: float, macs: int) -> Timed:
    return Timed(path, op, kernel, seconds, seconds, 1, macs, 1000, 0.5)


STEPS = (
    step("a", "conv", "conv_1_14_2_16_f32x16", 0.5, 10**6),
    step("b", "conv", "winograd_4_14_2_f32x16", 0.2, 10**7),
    step("c", "conv", "depthwise_14_16_f32x16", 0.1, 10**3),
    step("d", "dense", "conv_1_1_8_16_f32x16", 0.1, 10**4),
    step("e", "deconv", "conv_1_14_2_16_f32x16", 0.05, 10**4),
    step("f", "maxpool", "maxpool_f32x16", 0.05, 0),
)


def test_every_layer_that_multiplies_is_under_the_roof() -> None:
    root = parsed(roofline_plot(Profile("net", 1, 3, Roof(2, 1e9, 1e8), STEPS, 1.0)))
    assert sorted(h.partition(":")[0] for h in hints(root)) == ["a", "b", "c", "d", "e"]
    names = {t.text for t in root.iter(f"{SVG}text")}
    assert set(KINDS) <= names and {"a", "b"} <= names


def test_kinds() -> None:
    assert [kind_of(s) for s in STEPS[:5]] == list(KINDS)


def test_a_network_that_multiplies_nothing_has_an_empty_plot() -> None:
    assert not hints(parsed(roofline_plot(Profile("net", 1, 3, Roof(1, 1e9, 1e8), STEPS[5:], 1.0))))
