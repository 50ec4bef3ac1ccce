"""`netdsl networks`: what ships."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from netdsl.cli import console, options

if TYPE_CHECKING:
    from netdsl.catalogue import Shipped


@click.command("networks")
@options.as_json
def command(as_json: bool) -> None:
    """List the networks that ship: parameters, multiply-accumulates an image, published accuracy, trained weights.

    Weights that are a download come with `netdsl fetch NET`, or with `netdsl run NET --weights pretrained`.
    """
    from netdsl.catalogue import catalogue

    rows = list(catalogue())
    if as_json:
        console.print_json([asdict(network) for network in rows])
        return
    columns = ("network", "parameters", "MACs", "top-1 %", "top-5 %", "on", "weights")
    console.print_table(columns, [_cells(network) for network in rows], numbers=range(1, 5))


def _cells(n: Shipped) -> tuple[str, ...]:
    figures = f"{n.parameters:,}", f"{n.macs:,}", _percent(n.top1), _percent(n.top5)
    return n.name, *figures, n.data or "", n.weights or ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
