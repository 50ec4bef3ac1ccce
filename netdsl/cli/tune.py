"""`netdsl tune`: measure which algorithm is fastest for each convolution, and keep it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from netdsl.cli import console, options

if TYPE_CHECKING:
    from netdsl.backends.cpu.tune import Layer


@click.command("tune")
@options.network
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images in a call.")
@options.threads
@click.option("--rounds", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Turns of each way.")
@options.settings
@options.as_json
def command(
    net: str, batch: int, threads: int | None, rounds: int, settings: dict[str, Any], as_json: bool
) -> None:  # fmt: skip
    """Measure which algorithm runs each convolution of NET fastest on this CPU, and keep the choices.

    A model chooses without being asked; this measures instead, for a number of threads and images, and keeps what saves
    more than 3 % of a layer's time, if the whole network gains. Networks with the same layers share choices. F(m) is
    Winograd's algorithm for m x m outputs at a time.
    NETDSL_CACHE names the folder they are kept in.
    """
    from netdsl.compiler import tune

    with console.progress() as report:
        found = tune(net, settings, batch, threads, rounds, report)
    if as_json:
        console.print_json(asdict(found) | {"file": str(found.file), "changes": found.changes})
        return
    if not found.layers:
        click.echo(f"{found.network} has no convolution that there are several ways to run")
        return
    headings = ("layers", "convolution", "direct ms", "F(2) ms", "F(4) ms", "F(6) ms", "default", "best", "gain")
    console.print_table(headings, [_cells(layer) for layer in found.layers], numbers=(2, 3, 4, 5, 8))
    threads_text = f"{found.threads} thread{'s' * (found.threads > 1)}"
    times = f"{found.before * 1e3:.3f} ms before, {found.after * 1e3:.3f} ms now"
    click.echo(f"a whole call, {threads_text}, batch {found.images}: {times}")
    changed = len(found.changes)
    click.echo(f"{changed} choice{'s' * (changed != 1)} kept in {found.file}" if changed else "nothing to change")


def _cells(layer: Layer) -> tuple[str, ...]:
    times = [f"{layer.seconds[m] * 1e3:.3f}" if m in layer.seconds else "" for m in (0, 2, 4, 6)]
    first, more = layer.paths[0], len(layer.paths) - 1
    gain = layer.seconds[layer.default] / layer.seconds[layer.best]
    where = first + (f" and {more} more" if more else "")
    return where, layer.geometry, *times, _way(layer.default), _way(layer.best), f"{gain:.2f}"


def _way(m: int) -> str:
    return f"F({m})" if m else "direct"
