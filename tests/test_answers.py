"""What a classifier's output means."""

from __future__ import annotations

import numpy as np
import pytest

from netdsl.answers import Score, is_classifier, picture_values, probabilities, read_labels, top
from netdsl.errors import InputError
from netdsl.graph.build import build
from netdsl.graph.ir import Graph


def graph(tail: str, labels: str = "") -> Graph:
    return build(f"netdsl 1\nnet n() {{\n  input image 3x8x8 range=(0,255) {labels}\n  {tail}\n}}\n")


@pytest.mark.parametrize(
    ("tail", "meant"),
    [
        ("flatten | dense 3", lambda y: np.exp(y) / np.exp(y).sum(1, keepdims=True)),
        ("flatten | dense 3 | softmax", lambda y: y),
        ("avgpool global | softmax | flatten | dropout 0.5", lambda y: y),
        ("flatten | dense 3 | logsoftmax", np.exp),
        ("flatten | dense 3 | sigmoid", lambda y: y),
    ],
)
def test_probabilities_follow_what_the_network_ends_in(tail: str, meant) -> None:  # type: ignore[no-untyped-def]
    g = graph(tail)
    values = np.log(np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]], np.float32))
    assert is_classifier(g, g.outputs[0])
    np.testing.assert_allclose(probabilities(g, g.outputs[0], values), meant(values.astype(float)), rtol=1e-6)


def test_large_logits_do_not_overflow() -> None:
    g = graph("flatten | dense 2")
    chances = probabilities(g, g.outputs[0], np.array([[1e4, -1e4]], np.float32))
    np.testing.assert_array_equal(chances, [[1.0, 0.0]])


def test_maps_and_single_values_are_no_classes() -> None:
    for tail in ("conv 4 3x3", "flatten | dense 1"):
        g = graph(tail)
        assert not is_classifier(g, g.outputs[0])


def test_top_takes_the_first_of_equals() -> None:
    answers = top(np.array([0.1, 0.4, 0.4, 0.1]), 3, ("a", "b", "c", "d"))
    assert [(a.index, a.name) for a in answers] == [(1, "b"), (2, "c"), (0, "a")]
    assert [a.name for a in top(np.array([0.1, 0.9]), 9)] == ["class 1", "class 0"]


def test_score_counts_right_answers() -> None:
    score = Score()
    score.add(np.array([[0, 5, 1, 2, 3, 4], [5, 4, 3, 2, 1, 0]], np.float32), np.array([1, 5]))
    score.add(np.array([[1, 1, 0, 0, 0, 0]], np.float32), np.array([1]))
    assert (score.images, score.first, score.first5) == (3, 1, 2)
    assert score.top1 == pytest.approx(1 / 3)


def test_a_network_that_answers_no_number_is_never_right() -> None:
    score = Score()
    score.add(np.full((2, 10), np.nan, np.float32), np.array([0, 9]))
    assert (score.first, score.first5) == (0, 0)


def test_an_empty_score_is_no_number() -> None:
    assert np.isnan(Score().top1) and np.isnan(Score().top5)


def test_pictures_after_tanh_reach_from_minus_one() -> None:
    g = graph("conv 3 3x3 | tanh")
    assert picture_values(g, g.outputs[0]).range == (-1.0, 1.0)
    g = graph("conv 3 3x3")
    assert picture_values(g, g.outputs[0]).range == (0.0, 255.0)
    g = graph("conv 1 3x3")
    assert picture_values(g, g.outputs[0]).range == (0.0, 1.0)


def test_labels_count_only_when_there_is_one_for_each_class() -> None:
    g = build("lenet5")
    names = read_labels(g, 10)
    assert names is not None and len(names) == 10
    assert read_labels(g, 11) is None
    assert read_labels(graph("conv 4 3x3"), 4) is None


def test_labels_that_cannot_be_read_are_an_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "names.txt").write_bytes(b"\xff\xfe\xff")
    net = tmp_path / "n.net"
    net.write_text('netdsl 1\nnet n() {\n  input image 3x8x8 labels="names.txt"\n  flatten | dense 3\n}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        read_labels(build(net), 3)
