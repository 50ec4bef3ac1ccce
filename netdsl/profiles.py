"""What a profile holds: how long each step of a compiled network took, beside what the machine can do at most."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Roof:
    """The measured ceilings of so many threads together: FLOP a second (a multiply-add is two), bytes read a second.

    Of a GPU, `card` is its name, `threads` 1, and bytes are those of a copy, read and written.
    """

    threads: int
    flops: float
    bandwidth: float
    card: str = ""

    def at(self, intensity: float) -> float:
        """The most FLOP a second at so many FLOP for each byte that is read."""
        return min(self.flops, intensity * self.bandwidth)


@dataclass(frozen=True)
class Phases:
    """The parts of a call on a device with memory of its own, in seconds: inputs going there, the steps, outputs back.

    Sending counts from its first copy to its last, and so takes in what the host does in between: it copies inputs into
    memory that the device can read.
    """

    to_device: float
    compute: float
    from_device: float

    def __add__(self, other: Phases) -> Phases:
        return Phases(
            self.to_device + other.to_device, self.compute + other.compute, self.from_device + other.from_device
        )


@dataclass(frozen=True)
class Timed:
    """One step: a kernel called once.

    path      of the network's layer, `a+b` of one made of several; op: the layer's operator, such as conv or maxpool
    seconds   median
    share     of the time of all steps, 0 to 1
    threads   that worked on it
    macs      multiply-accumulates of the whole batch as the layer's definition has them; an algorithm that needs fewer
              (Winograd's) is credited with all
    bytes     of weights, inputs and result, each counted once
    part      of the roof's FLOP a second, 0 to 1 (above 1 only where an algorithm saves multiply-accumulates)
    """

    path: str
    op: str
    kernel: str
    seconds: float
    share: float
    threads: int
    macs: int
    bytes: int
    part: float

    @property
    def flops(self) -> float:
        """FLOP a second."""
        return 2 * self.macs / self.seconds if self.seconds else 0.0

    @property
    def intensity(self) -> float:
        """FLOP for each byte."""
        return 2 * self.macs / self.bytes if self.bytes else 0.0


HEADINGS = ("layer", "kernel", "ms", "share", "GFLOP/s", "of peak", "GB/s")
RIGHT = range(2, 7)  # the columns of figures


@dataclass(frozen=True)
class Profile:
    """Every step of a network in the order of execution.

    images   the batch; rounds: how often each step was timed
    steps    by time each, measured one by one
    seconds  median of a whole call, measured apart; steps one by one take a little longer together, as their data may
             leave the nearest caches in between
    """

    network: str
    images: int
    rounds: int
    roof: Roof
    steps: tuple[Timed, ...]
    seconds: float

    def __iter__(self) -> Iterator[Timed]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)

    def totals(self) -> list[tuple[str, str]]:
        """The totals in words: (what, how much)."""
        roof, flops = self.roof, 2 * self.macs / self.seconds if self.seconds else 0.0
        steps = sum(step.seconds for step in self.steps)
        machine = (
            f"{roof.flops / 1e9:,.0f} GFLOP/s, {roof.bandwidth / 1e9:,.1f} GB/s {'copied' if roof.card else 'read'}"
        )
        measured = f"of {roof.card}" if roof.card else f"with {roof.threads} thread{'s' * (roof.threads > 1)}"
        times = f"{self.seconds * 1e3:.3f} ms (steps one by one {steps * 1e3:.3f} ms)"
        return [
            ("a whole call", f"{times}, batch {self.images}"),
            ("speed", f"{flops / 1e9:,.1f} GFLOP/s, {flops / roof.flops:.0%} of the machine's peak"),
            ("machine", f"{machine}, measured {measured}"),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The profile as plain data, seconds and bytes."""
        return {
            "network": self.network,
            "batch": self.images,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "machine": asdict(self.roof),
            "steps": [asdict(step) | {"flops": step.flops} for step in self.steps],
        }

    def trace(self) -> dict[str, Any]:
        """Steps one after another on every thread that works on them, in the Trace Event Format of Chrome and Perfetto.

        Source: "Trace Event Format", complete events (ph X), times in microseconds.
        """
        events: list[dict[str, Any]] = [
            {"name": "process_name", "ph": "M", "pid": 0, "args": {"name": f"netdsl {self.network}"}}
        ]
        at = 0.0
        for step in self.steps:
            lasts = step.seconds * 1e6
            facts = {"kernel": step.kernel, "GFLOP/s": round(step.flops / 1e9, 1), "MACs": step.macs,
                     "bytes": step.bytes, "part of peak": round(step.part, 3)}  # fmt: skip
            for thread in range(step.threads):
                events.append({"name": step.path, "cat": step.op, "ph": "X", "ts": at, "dur": lasts,
                               "pid": 0, "tid": thread, "args": facts})  # fmt: skip
            at += lasts
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def __str__(self) -> str:
        table = [HEADINGS, *(cells(step) for step in self.steps)]
        widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
        lines = []
        for line in table:
            texts = (
                t.rjust(w) if i in RIGHT else t.ljust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True))
            )
            lines.append("  ".join(texts).rstrip())
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([self.network, *lines, *(f"{what}: {amount}" for what, amount in self.totals())])

    def _repr_html_(self) -> str:
        def line(tag: str, texts: tuple[str, ...]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"

        body = "".join(line("td", cells(step)) for step in self.steps)
        totals = "<br>".join(html.escape(f"{what}: {amount}") for what, amount in self.totals())
        name = html.escape(self.network)
        return f"<table><caption>{name}</caption>{line('th', HEADINGS)}{body}</table><p>{totals}</p>"


def cells(step: Timed) -> tuple[str, ...]:
    """A step as the texts under HEADINGS; no FLOP/s where there is nothing to multiply."""
    speed = (f"{step.flops / 1e9:,.1f}", f"{step.part:.0%}") if step.macs else ("", "")
    rate = f"{step.bytes / step.seconds / 1e9:,.1f}" if step.seconds else ""
    return step.path, step.kernel, f"{step.seconds * 1e3:.4f}", f"{step.share:.1%}", *speed, rate
