"""What each layer of a graph costs and sees: rows for a summary, and their totals."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator

from netdsl.frozen import frozen
from netdsl.graph.ir import Graph, Node
from netdsl.ops.base import Input, Pair, Window
from netdsl.ops.dense import Dense
from netdsl.tensor import Shape, TensorType

FLOAT_BYTES = 4  # derived: everything is float32


@frozen
class Row:
    """One layer.

    output            shape of its result for one image
    parameters        learnable values
    macs              multiply-accumulates for one image; FLOP = 2 x macs
    activation_bytes  size of its result for one image, float32
    receptive_field   (height, width) in cells of the input that one value of the result can depend on. Padding counts,
                      so it may be larger than the input. Normalisation by a map's own mean is not counted. A stride
                      after an enlargement may keep the exact value a little below
    """

    path: str
    op: str
    description: str
    output: Shape
    parameters: int
    macs: int
    activation_bytes: int
    receptive_field: Pair


@frozen
class Summary:
    """All layers in order of execution, and totals.

    weight_bytes      all stored tensors, running statistics included, float32
    activation_bytes  the results of all layers together, for one image
    peak_bytes        the most that is alive at a time, for one image: each layer's inputs and result, and what later
                      layers still need
    arena_bytes       what the CPU backend allocates for one call with one image: all intermediate results, with the
                      zeros around them and each thread's scratch memory; None where that is not known
    precision         which weights are kept in less than float32, in words; None where all are float32
    """

    name: str
    rows: tuple[Row, ...]
    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    peak_bytes: int
    arena_bytes: int | None = None
    precision: str | None = None

    @property
    def flop(self) -> int:
        """Floating-point operations for one image: a multiply-accumulate counts as two."""
        return 2 * self.macs

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def totals(self) -> list[tuple[str, str]]:
        """The totals in words: (what, how much)."""
        totals = [
            ("parameters", f"{self.parameters:,} ({bytes_text(self.weight_bytes)} stored)"),
            ("multiply-accumulates", f"{self.macs:,} an image ({self.flop:,} FLOP)"),
            ("activations", f"{bytes_text(self.activation_bytes)} an image, {bytes_text(self.peak_bytes)} at a time"),
        ]
        if self.arena_bytes is not None:
            totals.append(("arena", f"{bytes_text(self.arena_bytes)} for a call with one image"))
        if self.precision is not None:
            totals.append(("precision", self.precision))
        return totals

    def __str__(self) -> str:
        table = [HEADINGS, *(cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
        lines = ["  ".join(_align(text, width, i) for i, (text, width) in enumerate(zip(line, widths, strict=True)))
                 for line in table]  # fmt: skip
        lines.insert(1, "  ".join("-" * width for width in widths))
        totals = [f"{what}: {amount}" for what, amount in self.totals()]
        return "\n".join([self.name, *(line.rstrip() for line in lines), *totals])

    def _repr_html_(self) -> str:
        def line(tag: str, texts: tuple[str, ...]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

        body = "".join(line("td", cells(row)) for row in self.rows)
        totals = "<br>".join(html.escape(f"{what}: {amount}") for what, amount in self.totals())
        return f"<table><caption>{html.escape(self.name)}</caption>{line('th', HEADINGS)}{body}</table><p>{totals}</p>"


HEADINGS = ("path", "layer", "output", "parameters", "MACs", "memory", "receptive field")
_RIGHT = range(3, 7)  # the columns of figures


def cells(row: Row) -> tuple[str, ...]:
    """A row as the texts under HEADINGS."""
    field = "x".join(map(str, row.receptive_field))
    figures = f"{row.parameters:,}", f"{row.macs:,}", bytes_text(row.activation_bytes)
    return row.path, row.description, "x".join(map(str, row.output)), *figures, field


def bytes_text(count: int) -> str:
    """A number of bytes for people: 976 B, 3.1 KiB, 44.6 MiB."""
    if count < 1024:
        return f"{count} B"
    amount, unit = count / 1024, "KiB"
    for unit_next in ("MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, unit_next
    return f"{amount:.1f} {unit}"


def _align(text: str, width: int, column: int) -> str:
    return text.rjust(width) if column in _RIGHT else text.ljust(width)


def summary(graph: Graph, arena_bytes: int | None = None, precision: str | None = None) -> Summary:
    """Cost, memory and receptive field of every node; `arena_bytes` and `precision` as a backend knows them."""
    rows = tuple(_row(graph, node, view) for node, view in zip(graph.nodes, _views(graph), strict=True))
    stored = sum(math.prod(shape) for shape in graph.tensors.values())
    total = sum(row.activation_bytes for row in rows)
    macs, parameters = sum(row.macs for row in rows), sum(row.parameters for row in rows)
    weights, peak = stored * FLOAT_BYTES, _peak_bytes(graph)
    return Summary(graph.name, rows, parameters, macs, weights, total, peak, arena_bytes, precision)


def _row(graph: Graph, node: Node, view: _View) -> Row:
    return Row(
        path=node.path,
        op=node.op.name,
        description=node.op.describe(),
        output=node.type.shape,
        parameters=graph.node_parameters(node),
        macs=graph.node_macs(node),
        activation_bytes=node.type.elements * FLOAT_BYTES,
        receptive_field=view.field,
    )


def _peak_bytes(graph: Graph) -> int:
    """The most bytes alive while a node runs; a value lives until its last consumer has run, an output to the end."""
    dies: list[list[int]] = [[] for _ in graph.nodes]
    kept = {spec.node for spec in graph.outputs}
    for i, readers in enumerate(graph.consumers()):
        if i not in kept:
            dies[max(readers, default=i)].append(i)
    alive = peak = 0
    for i, node in enumerate(graph.nodes):
        alive += node.type.elements
        peak = max(peak, alive)
        alive -= sum(graph.nodes[j].type.elements for j in dies[i])
    return peak * FLOAT_BYTES


@frozen
class _Step:
    """Values that lie w apart see values one step before that lie (w times + plus) // over apart."""

    times: int
    plus: int
    over: int = 1


_Path = tuple[_Step, ...]  # from a tensor back to the network's input, along one axis


@frozen
class _View:
    """How the values of a tensor see the input.

    paths   back to the input, vertically and horizontally
    extent  height and width of the map, or of the map that a vector was flattened from
    """

    paths: tuple[_Path, _Path]
    extent: Pair

    @property
    def field(self) -> Pair:
        """Receptive field of one value."""
        return _reach(self.paths[0]) + 1, _reach(self.paths[1]) + 1


def _reach(path: _Path) -> int:
    """How far apart the input cells lie that one value sees."""
    w = 0
    for step in path:
        w = (w * step.times + step.plus) // step.over
    return w


def _prepended(step: _Step, path: _Path) -> _Path:
    """The path with one more step on its near side, as one step with the next where that is exact."""
    if path:
        far = path[0]
        if step.over == 1:
            return (_Step(step.times * far.times, step.plus * far.times + far.plus, far.over), *path[1:])
        if far.times == 1:
            return (_Step(step.times, step.plus + far.plus * step.over, step.over * far.over), *path[1:])
    return (step, *path)


def _through(view: _View, steps: tuple[_Step, _Step], extent: Pair) -> _View:
    return _View((_prepended(steps[0], view.paths[0]), _prepended(steps[1], view.paths[1])), extent)


def _views(graph: Graph) -> list[_View]:
    views: list[_View] = []
    for node in graph.nodes:
        views.append(_view(node, graph.input_types(node), [views[i] for i in node.inputs]))
    return views


def _view(node: Node, types: tuple[TensorType, ...], seen: list[_View]) -> _View:
    if isinstance(node.op, Input):
        return _View(((), ()), _extent(node.type, (1, 1)))
    view = _joined(types, seen)
    extent = _extent(node.type, view.extent)
    if isinstance(node.op, Dense):  # every output sees every cell of the map that was flattened
        return _through(view, (_Step(0, view.extent[0] - 1), _Step(0, view.extent[1] - 1)), (1, 1))
    window = node.op.window(*types)
    return _View(view.paths, extent) if window is None else _through(view, _steps(window), extent)


def _steps(window: Window) -> tuple[_Step, _Step]:
    spans = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
    first, second = (_Step(window.stride[i], spans[i], window.scale[i]) for i in (0, 1))
    return first, second


def _joined(types: tuple[TensorType, ...], seen: list[_View]) -> _View:
    """What a join sees, along each axis: the input that sees farthest. A gate's one value serves all positions."""
    extent = max((t.shape[1:] for t in types), key=math.prod)
    spread = [v if t.shape[1:] == extent else _through(v, (_Step(0, 0), _Step(0, 0)), v.extent)
              for v, t in zip(seen, types, strict=True)]  # fmt: skip
    vertical, horizontal = (max((v.paths[i] for v in spread), key=_reach) for i in (0, 1))
    return _View((vertical, horizontal), max(v.extent for v in seen))


def _extent(kind: TensorType, before: Pair) -> Pair:
    return (kind.height, kind.width) if kind.is_map else before
