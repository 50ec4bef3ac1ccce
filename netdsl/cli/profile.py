"""`netdsl profile`: how long each layer takes, and how near it comes to what the machine can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from netdsl.cli import console, options


@click.command("profile")
@options.network
@options.weights
@options.device
@options.precision
@options.threads
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images in a call.")
@click.option("--rounds", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Times a step is timed.")
@options.settings
@options.seed
@options.new_file("--trace", "FILE.json", "Write a trace for chrome://tracing or Perfetto.")
@options.new_file("--plot", "FILE.svg", "Draw every layer under the machine's roof.")
@options.as_json
def command(
    net: str, weights: str | None, device: str, precision: str, threads: int | None, batch: int, rounds: int,
    settings: dict[str, Any], seed: int, trace: Path | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Time every layer of NET: kernel, milliseconds, share, GFLOP/s, part of the machine's measured peak.

    The input is seeded noise; without weights, random ones are used: neither changes how long a layer takes.
    """
    from netdsl.benchmark import noise
    from netdsl.graph.build import build
    from netdsl.profiles import HEADINGS, RIGHT, cells

    graph = build(net, params=settings)
    model = options.compile_graph(graph, weights, device, threads, seed, precision=precision)
    found = model.profile(*noise(graph, batch, seed), rounds=rounds)
    if trace is not None:
        trace.write_text(json.dumps(found.trace()), encoding="utf-8")
    if plot is not None:
        from netdsl.plots import roofline_plot

        plot.write_text(roofline_plot(found), encoding="utf-8")
    if as_json:
        console.print_json(found.as_dict() | {"precision": model.precision})
        return
    click.echo(f"{found.network}, batch {found.images}")
    console.print_table(HEADINGS, [cells(step) for step in found], numbers=RIGHT)
    for what, amount in found.totals():
        click.echo(f"{what}: {amount}")
    for file in filter(None, (trace, plot)):
        click.echo(f"written to {file}")
