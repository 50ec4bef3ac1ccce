"""What a classifier's output means: probabilities, labels, and how often the answer is right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from netdsl.errors import InputError
from netdsl.frozen import frozen
from netdsl.graph.ir import Graph, OutputSpec, Preprocess
from netdsl.ops.activation import Sigmoid, Tanh
from netdsl.ops.base import Array, Op
from netdsl.ops.shape import Dropout, Flatten
from netdsl.ops.softmax import LogSoftmax, Softmax

MAX_LABELS_BYTES = 16 * 2**20  # chosen: a label file is a few kilobytes


@frozen
class Answer:
    """One class a network considers: its index, its label (None where the network names none), its probability."""

    index: int
    label: str | None
    probability: float

    @property
    def name(self) -> str:
        return self.label if self.label is not None else f"class {self.index}"


def is_classifier(graph: Graph, output: OutputSpec) -> bool:
    """Whether an output holds one value per class: a vector of at least two, or a map of one pixel."""
    shape = graph.nodes[output.node].type.shape
    return shape[0] > 1 and all(size == 1 for size in shape[1:])


def probabilities(graph: Graph, output: OutputSpec, values: Array) -> Array:
    """The probability of each class: [N, classes] from a classifier's output [N, classes(, 1, 1)].

    Where the network ends in softmax, logsoftmax or sigmoid, its own values count; otherwise softmax is applied.
    """
    values = _rows(values).astype(np.float64)
    last = _last_operation(graph, output.node)
    if isinstance(last, (Softmax, Sigmoid)):
        return values
    if isinstance(last, LogSoftmax):
        return np.asarray(np.exp(values))
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _rows(values: Array) -> Array:
    """[N, classes] from [N, classes(, 1, 1)], N may be 0."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _last_operation(graph: Graph, index: int) -> Op:
    """The operation that made the values, looking through those that only reshape."""
    node = graph.nodes[index]
    while isinstance(node.op, (Flatten, Dropout)):
        node = graph.nodes[node.inputs[0]]
    return node.op


def top(chances: Array, count: int, labels: tuple[str, ...] | None = None) -> list[Answer]:
    """The `count` most probable classes of one image, from its probabilities [classes]; ties in order of index."""
    order = np.argsort(-chances, kind="stable")[:count]
    return [Answer(int(i), labels[i] if labels else None, float(chances[i])) for i in order]


def picture_values(graph: Graph, output: OutputSpec) -> Preprocess:
    """How the values of an output that is a picture map to its colours.

    After tanh, -1 is black and 1 is white; else as in the first input, where that is a picture of as many channels.
    """
    kind = graph.nodes[output.node].type
    if isinstance(_last_operation(graph, output.node), Tanh):
        return Preprocess(range=(-1.0, 1.0))
    same = graph.inputs[0].type.is_map and kind.is_map and graph.inputs[0].type.channels == kind.channels
    return graph.inputs[0].preprocess if same else Preprocess()


def read_labels(graph: Graph, classes: int) -> tuple[str, ...] | None:
    """The class names that the network's input line points to; None where there are none, or not `classes` of them.

    Raises InputError when the file cannot be read.
    """
    if graph.labels is None:
        return None
    try:
        with Path(graph.labels).open(encoding="utf-8") as file:
            names = tuple(line.strip() for line in file.read(MAX_LABELS_BYTES).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the labels cannot be read: {reason}", code="bad-labels", path=graph.labels) from None
    return names if len(names) == classes else None


class Score:
    """Counts how often the right class is the first, and among the first five, of a classifier's answers."""

    def __init__(self) -> None:
        self.images = self.first = self.first5 = 0

    def add(self, values: Array, classes: Array) -> None:
        """Count a batch: the network's output [N, classes] and the right class [N] of each."""
        values = _rows(values)
        right = np.take_along_axis(values, classes[:, None], axis=1)
        # Of equal values the first in order wins; a value that is no number is never right.
        behind = (values < right) | ((values == right) & (np.arange(values.shape[1]) >= classes[:, None]))
        rank = (~behind).sum(axis=1)
        self.images += len(values)
        self.first += int((rank == 0).sum())
        self.first5 += int((rank < 5).sum())

    @property
    def top1(self) -> float:
        return self.first / self.images if self.images else float("nan")

    @property
    def top5(self) -> float:
        return self.first5 / self.images if self.images else float("nan")

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.images, "top1": self.top1, "top5": self.top5}
