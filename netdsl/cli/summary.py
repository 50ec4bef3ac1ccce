"""`netdsl summary`: shapes and costs of every layer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from netdsl.cli import console, options


@click.command("summary")
@options.network
@options.settings
@options.threads
@options.as_json
def command(net: str, settings: dict[str, Any], threads: int | None, as_json: bool) -> None:
    """Show each layer's output shape, parameters, multiply-accumulates, memory and receptive field, and the totals.

    All figures are for one image in float32. One multiply-accumulate is two floating-point operations. The arena holds
    all intermediate results of a call, and scratch memory for each of so many threads.
    """
    from netdsl.backends.cpu.ahead import plan_ahead
    from netdsl.graph.build import build
    from netdsl.graph.show import HEADINGS, cells, summary

    graph = build(net, params=settings)
    table = summary(graph, plan_ahead(graph, threads=threads).workspace_bytes)
    if as_json:
        console.print_json(asdict(table) | {"flop": table.flop})
        return
    click.echo(table.name)
    console.print_table(HEADINGS, [cells(row) for row in table], numbers=range(3, 7))
    for what, amount in table.totals():
        click.echo(f"{what}: {amount}")
