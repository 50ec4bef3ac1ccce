"""Plots as SVG, written by hand: how fast beside other engines, devices as the batch grows, layers under the roof.

All are functions of plain data that return the text of one SVG file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

from netdsl.benchmark import Comparison
from netdsl.lowerings import SideBySide
from netdsl.peers import Peer
from netdsl.profiles import Profile, Roof, Timed

# Okabe and Ito's colours, told apart by everyone ("Color Universal Design", 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
INK, FAINT, GRID, PAPER = "#1f2933", "#6b7785", "#e3e8ee", "#ffffff"
FONT = "font-family='ui-sans-serif, system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


@dataclass
class Drawing:
    """SVG elements so far, on a sheet of width x height pixels."""

    width: float
    height: float
    title: str

    def __post_init__(self) -> None:
        self.parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = GRID, wide: float = 1.0) -> None:
        at = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
        self.parts.append(f"<line {at} stroke='{colour}' stroke-width='{wide}'/>")

    def text(
        self, x: float, y: float, text: str, size: float = 12, colour: str = INK, anchor: str = "start",
        bold: bool = False, turn: float = 0,
    ) -> None:  # fmt: skip
        turned = f" transform='rotate({turn:.1f} {x:.1f} {y:.1f})'" if turn else ""
        weight = " font-weight='600'" if bold else ""
        style = f"font-size='{size}' fill='{colour}' text-anchor='{anchor}'{weight}{turned}"
        self.parts.append(f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>")

    def bar(self, x: float, y: float, width: float, height: float, colour: str, hint: str) -> None:
        at = f"x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{max(height, 0.8):.1f}' rx='1.5'"
        self.parts.append(f"<rect {at} fill='{colour}'><title>{escape(hint)}</title></rect>")

    def dot(self, x: float, y: float, radius: float, colour: str, hint: str = "") -> None:
        title = f"<title>{escape(hint)}</title>" if hint else ""
        look = f"fill='{colour}' fill-opacity='0.72' stroke='{PAPER}' stroke-width='1'"
        self.parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' {look}>{title}</circle>")

    def shape(self, points: Sequence[tuple[float, float]], colour: str, wide: float = 2.5) -> None:
        """A line through points."""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f"<polyline points='{joined}' fill='none' stroke='{colour}' stroke-width='{wide}'/>")

    def legend(self, x: float, y: float, colours: Mapping[str, str]) -> None:
        """Names with their colours in a row that begins at x."""
        for name, colour in colours.items():
            self.parts.append(f"<rect x='{x:.1f}' y='{y - 9:.1f}' width='10' height='10' rx='2' fill='{colour}'/>")
            self.text(x + 15, y, name)
            x += _wide(name, 12) + 34

    def __str__(self) -> str:
        size = f"width='{self.width:.0f}' height='{self.height:.0f}' viewBox='0 0 {self.width:.0f} {self.height:.0f}'"
        head = f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img' {FONT}>"
        sheet = f"<title>{escape(self.title)}</title><rect width='100%' height='100%' rx='6' fill='{PAPER}'/>"
        return "\n".join([head, sheet, *self.parts, "</svg>", ""])


def _wide(text: str, size: float) -> float:
    """About how many pixels a text takes."""
    return 0.56 * size * len(text)


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: values low..high on pixels start..end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self, steps: Sequence[float]) -> Iterator[float]:
        """Every step times a power of ten that lies on the axis."""
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            yield from (s * 10.0**power for s in steps if self.low <= s * 10.0**power <= self.high * 1.0001)


Ratios = Mapping[str, Mapping[str, float]]  # by network: by peer, how many times faster netdsl is

_BAR, _GAP, _TOP, _PANEL = 20, 26, 92, 250  # pixels
_LEFT, _RIGHT = 58, 20  # pixels beside the bars
_ACROSS = 9  # chosen: networks side by side; more go into rows below


def speed_plot(panels: Mapping[str, Ratios], peers: Sequence[str], note: str) -> str:
    """Bars of speed ratios on a logarithmic scale: up from the line at 1 where netdsl is faster, down where slower.

    panels  one below another, by title; a ratio is the peer's median time / netdsl's
    note    small print: the machine, threads, versions
    """
    rows = [(title, part) for title, ratios in panels.items() for part in _rows(ratios)]
    columns = max((len(part) for _, part in rows), default=1)
    width = max(640, _LEFT + _RIGHT + columns * max(_BAR * len(peers) + _GAP, 84))
    group = (width - _LEFT - _RIGHT) / columns
    slanted = group < max((_wide(n, 12) for _, part in rows for n in part), default=0) + 6
    tall = _PANEL + (74 if slanted else 46)
    drawing = Drawing(width, _TOP + tall * len(rows) + 20, "Speed of netdsl beside other engines")
    drawing.text(24, 30, "How many times faster netdsl is", 17, bold=True)
    drawing.legend(24, 54, dict(zip(peers, cycle(COLOURS), strict=False)))
    shown = [by_peer[p] for _, part in rows for by_peer in part.values() for p in peers if p in by_peer]
    low, high = min([0.8, *shown]) / 1.12, max([2.0, *shown]) * 1.15
    for i, (title, part) in enumerate(rows):
        axis = Axis(low, high, _TOP + i * tall + _PANEL, _TOP + i * tall + 14)
        _speed_axis(drawing, axis, title, width)
        for j, (network, by_peer) in enumerate(part.items()):
            middle = _LEFT + group * (j + 0.5)
            _speed_bars(drawing, axis, middle - _BAR * len(peers) / 2, network, by_peer, peers)
            if slanted:
                drawing.text(middle + 10, axis.start + 16, network, 12, anchor="end", turn=-30)
            else:
                drawing.text(middle, axis.start + 18, network, 12, anchor="middle")
    drawing.text(24, drawing.height - 14, note, 11, FAINT)
    return str(drawing)


def plot_of_comparisons(comparisons: Sequence[Comparison], peers: Sequence[Peer], facts: Mapping[str, Any]) -> str:
    """The speed plot of a benchmark, a panel for each batch size; `facts` as `netdsl.benchmark.facts` gives them."""
    titles = {peer.name: f"{peer.title} {facts['versions'][peer.name]}" for peer in peers}
    panels: dict[str, dict[str, dict[str, float]]] = {}
    for c in comparisons:
        panel = panels.setdefault(f"batch {c.batch}" + ("" if c.device == "cpu" else f" on {c.device}"), {})
        panel[c.network] = {titles[name]: ratio for name, ratio in c.ratios.items()}
    threads = max((c.threads for c in comparisons), default=1)
    kinds = " and ".join(dict.fromkeys(c.precisions for c in comparisons)) or "float32"
    note = f"{facts['processor']}, {threads} thread{'s' * (threads > 1)}, {kinds}; netdsl {facts['versions']['netdsl']}"
    return speed_plot(panels, list(titles.values()), note)


_SIDE = 300  # pixels of a crossover panel's height


def crossover_plot(comparisons: Sequence[SideBySide], note: str) -> str:
    """Time an image against batch size, both logarithmic, a line for each device; where lines cross is marked.

    A panel for each network, one below another. note: small print.
    """
    shown = [c for c in comparisons if any(c.timed(d) for d in c.devices)]
    devices = {d: c.devices[d] for c in shown for d in c.devices}
    colours = dict(zip(devices, cycle(COLOURS), strict=False))
    tall = _SIDE + 84
    drawing = Drawing(640, 92 + tall * len(shown), "Time an image as the batch grows")
    drawing.text(24, 30, "Time an image as the batch grows", 17, bold=True)
    drawing.legend(24, 54, {d if d == devices[d] else f"{d}: {devices[d]}": colours[d] for d in devices})
    for i, comparison in enumerate(shown):
        _crossover_panel(drawing, comparison, colours, 92 + tall * i)
    drawing.text(24, drawing.height - 14, note, 11, FAINT)
    return str(drawing)


def _crossover_panel(drawing: Drawing, found: SideBySide, colours: Mapping[str, str], top: float) -> None:
    lines = {d: {b: t * 1e3 for b, t in sorted(found.timed(d).items())} for d in found.devices}
    batches = [b for line in lines.values() for b in line]
    times = [t for line in lines.values() for t in line.values()]
    x = Axis(min(batches) / 1.25, max(batches) * 1.25, 76, drawing.width - 24)
    y = Axis(min(times) / 1.4, max(times) * 1.4, top + _SIDE, top + 14)
    drawing.text(24, top + 2, found.network, 13, FAINT, bold=True)
    for batch in sorted(set(batches)):
        drawing.line(x(batch), y.start, x(batch), y.end)
        drawing.text(x(batch), y.start + 17, str(batch), 11, FAINT, anchor="middle")
    for tick in y.ticks((1, 2, 5)):
        drawing.line(x.start, y(tick), x.end, y(tick))
        drawing.text(x.start - 7, y(tick) + 4, f"{tick:g}", 11, FAINT, anchor="end")
    drawing.text((x.start + x.end) / 2, y.start + 38, "images in a batch", 12, anchor="middle")
    drawing.text(22, (y.start + y.end) / 2, "ms an image", 12, anchor="middle", turn=-90)
    for c in found.crossings:
        drawing.line(x(c.batch), y.start, x(c.batch), y.end, INK, 1.2)
        place, anchor = (x(c.batch) + 6, "start") if x(c.batch) < drawing.width / 2 else (x(c.batch) - 6, "end")
        drawing.text(place, y.end + 14, f"from {c.batch:.3g} on {c.faster} is faster", 12, anchor=anchor)
    for device, line in lines.items():
        drawing.shape([(x(b), y(t)) for b, t in line.items()], colours[device])
        for b, t in line.items():
            drawing.dot(x(b), y(t), 5, colours[device], f"{found.network}, batch {b}, {device}: {t:.3g} ms an image")


def _rows(ratios: Ratios) -> Iterator[Ratios]:
    """The networks in rows of about the same length."""
    names = list(ratios)
    count = math.ceil(len(names) / _ACROSS)
    for i in range(count):
        yield {name: ratios[name] for name in names[i * len(names) // count : (i + 1) * len(names) // count]}


def _speed_axis(drawing: Drawing, axis: Axis, title: str, width: float) -> None:
    drawing.text(24, axis.end - 12, title, 13, FAINT, bold=True)
    for tick in axis.ticks((1, 1.5, 2, 3, 5, 7)):
        y = axis(tick)
        drawing.line(_LEFT, y, width - _RIGHT, y)
        drawing.text(_LEFT - 6, y + 4, f"{tick:g}×", 11, FAINT, anchor="end")
    drawing.line(_LEFT, axis(1), width - _RIGHT, axis(1), INK, 1.6)


def _speed_bars(
    drawing: Drawing, axis: Axis, left: float, network: str, by_peer: Mapping[str, float], peers: Sequence[str]
) -> None:  # fmt: skip
    one = axis(1)
    for i, (peer, colour) in enumerate(zip(peers, cycle(COLOURS), strict=False)):
        x = left + i * _BAR
        if peer not in by_peer:
            continue
        ratio = by_peer[peer]
        y = axis(ratio)
        hint = f"{network}: {ratio:.2f} times as fast as {peer}"
        drawing.bar(x + 1.5, min(y, one), _BAR - 3, abs(y - one), colour, hint)
        drawing.text(x + _BAR / 2, y - 4 if ratio >= 1 else y + 11, _short(ratio), 8.5, FAINT, anchor="middle")


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 1.995 else f"{ratio:.2f}"


KINDS = dict(zip(("direct convolution", "Winograd convolution", "depthwise", "dense", "other"), COLOURS, strict=False))
_LABELS = 8  # chosen: layers named in the plot, by time


def kind_of(step: Timed) -> str:
    """Which of KINDS a step is."""
    direct, winograd, depthwise, dense, other = KINDS
    if step.kernel.startswith("winograd"):
        return winograd
    if step.kernel.startswith("depthwise"):
        return depthwise
    return {"conv": direct, "dense": dense}.get(step.op, other)


def roofline_plot(profile: Profile) -> str:
    """Every layer that multiplies as a dot: FLOP for each byte across, FLOP a second up, its area its share of time."""
    steps = [s for s in profile if s.macs and s.seconds and s.bytes]
    roof = profile.roof
    drawing = Drawing(900, 580, f"Roofline of {profile.network}")
    drawing.text(
        24, 30, f"{profile.network}, batch {profile.images}: every layer under the machine's roof", 17, bold=True
    )
    threads = f"{roof.threads} thread{'s' * (roof.threads > 1)}"
    facts = f"{profile.seconds * 1e3:.3g} ms a call with {threads}; the area of a dot is its share of the time"
    drawing.text(24, 50, facts, 12, FAINT)
    used = {kind: colour for kind, colour in KINDS.items() if any(kind_of(s) == kind for s in steps)}
    drawing.legend(24, 74, used)
    ridge = roof.flops / roof.bandwidth
    across, up = [ridge, *(s.intensity for s in steps)], [roof.flops, *(s.flops for s in steps)]
    x = Axis(min(across) / 2, max(across) * 2.2, 76, drawing.width - 24)
    y = Axis(max(min(up) / 1.7, max(up) / 3e4), 1.6 * max(up), drawing.height - 98, 92)
    _grid(drawing, x, y)
    _roof(drawing, x, y, roof)
    for step in sorted(steps, key=lambda s: -s.share):
        place = x(step.intensity), y(max(step.flops, y.low))
        hint = (
            f"{step.path}: {step.kernel}, {_speed(step.flops)}, {step.part:.0%} of the peak, {step.share:.1%} of time"
        )
        drawing.dot(*place, _radius(step), KINDS[kind_of(step)], hint)
    _name_the_largest(drawing, x, y, steps, _Box(x.start, y(roof.flops) - 1, x.end, y(roof.flops) + 1))
    rest = sum(s.share for s in profile if not s.macs)
    drawing.text(
        24, drawing.height - 32, f"Steps that multiply nothing ({rest:.0%} of the time) are not shown.", 11, FAINT
    )
    if any(s.kernel.startswith("winograd") for s in steps):
        saved = "Winograd's algorithm is credited with the multiplications of the definition; it does with fewer."
        drawing.text(24, drawing.height - 16, saved, 11, FAINT)
    return str(drawing)


def _speed(flops: float) -> str:
    return f"{flops / 1e9:,.3g} GFLOP/s" if flops < 1e11 else f"{flops / 1e9:,.0f} GFLOP/s"


def _radius(step: Timed) -> float:
    return 3 + 34 * math.sqrt(step.share)


def _grid(drawing: Drawing, x: Axis, y: Axis) -> None:
    for tick in x.ticks((1, 2, 5)):
        drawing.line(x(tick), y.start, x(tick), y.end)
        drawing.text(x(tick), y.start + 17, f"{tick:g}", 11, FAINT, anchor="middle")
    for tick in y.ticks((1, 2, 5)):
        drawing.line(x.start, y(tick), x.end, y(tick))
        drawing.text(x.start - 7, y(tick) + 4, f"{tick / 1e9:g}", 11, FAINT, anchor="end")
    drawing.text((x.start + x.end) / 2, y.start + 38, "FLOP for each byte moved", 12, anchor="middle")
    drawing.text(22, (y.start + y.end) / 2, "GFLOP/s", 12, anchor="middle", turn=-90)


def _roof(drawing: Drawing, x: Axis, y: Axis, roof: Roof) -> None:
    ridge, first = roof.flops / roof.bandwidth, max(x.low, y.low / roof.bandwidth)
    corners = [(x(i), y(roof.at(i))) for i in (first, ridge, x.high)]
    (x1, y1), (x2, y2) = corners[:2]
    drawing.line(x.start, y2, x2, y2, FAINT, 0.8)
    drawing.text(x.start + 8, y2 - 7, f"{_speed(roof.flops)}, measured", 12)
    drawing.shape(corners, INK)
    if x2 - x1 > 60:
        turn = math.degrees(math.atan2(y2 - y1, x2 - x1))
        middle = (x1 + x2) / 2 - 9, (y1 + y2) / 2 - 6
        drawing.text(*middle, f"{roof.bandwidth / 1e9:.0f} GB/s read, measured", 12, anchor="middle", turn=turn)


def _name_the_largest(drawing: Drawing, x: Axis, y: Axis, steps: Sequence[Timed], ceiling: _Box) -> None:
    """Names beside the dots of the layers that take longest; dots that lie on one another share a name."""
    dots = [(x(s.intensity), y(max(s.flops, y.low)), _radius(s)) for s in steps]
    order = sorted(range(len(steps)), key=lambda i: -steps[i].share)
    named: list[int] = []
    boxes = [ceiling, *(_Box(cx - r, cy - r, cx + r, cy + r) for cx, cy, r in dots)]
    for i in order:
        cx, cy, r = dots[i]
        if len(named) == _LABELS or any(math.dist(dots[j][:2], (cx, cy)) < _NEAR for j in named):
            continue
        named.append(i)
        near = sum(math.dist(d[:2], (cx, cy)) < _NEAR for d in dots) - 1
        text = steps[i].path + (f" +{near}" if near else "")
        wide = _wide(text, 11)
        places = [(cx + r + 4, cy + 4), (cx - r - 4 - wide, cy + 4)]
        places += [(cx - wide / 2, cy + s * (r + d)) for d in (6, 20, 34, 48) for s in (-1, 1)]
        places += [(left, cy + d) for d in (18, -14, 32, -28) for left in (cx + r + 4, cx - r - 4 - wide)]
        for left, line in places:
            box = _Box(left, line - 9, left + wide, line + 2)
            inside = x.start < box.left and box.right < x.end and y.end < box.top and box.bottom < y.start
            if inside and not any(box.meets(other) for other in boxes):
                boxes.append(box)
                drawing.text(left, line, text, 11)
                break


_NEAR = 26  # chosen: pixels within which dots share a name


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom
