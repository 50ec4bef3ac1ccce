"""`netdsl warm`: compile ahead."""

from __future__ import annotations

import time
from typing import Any

import click

from netdsl.cli import console, options


@click.command("warm")
@click.argument("nets", metavar="[NET]...", nargs=-1)
@click.option(
    "--batch", type=click.IntRange(1, 65536), default=1, show_default=True, help="The batch size to run with."
)
@options.precision
@options.threads
@options.settings
@options.as_json
def command(
    nets: tuple[str, ...], batch: int, precision: str, threads: int | None, settings: dict[str, Any], as_json: bool
) -> None:
    """Compile the kernels of each NET, or of all networks that ship, into the user's cache.

    A network compiles its kernels when it is first run on a machine; this does so beforehand. Networks share kernels,
    so most of a second network's are there already. NETDSL_CACHE names another folder. Where that cannot be written, it
    ends with status 1.
    """
    import warnings

    from netdsl.compiler import warm
    from netdsl.errors import NetWarning
    from netdsl.graph import library

    names = list(nets) or library.names()
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, console.progress() as report:
        warnings.simplefilter("always", NetWarning)
        needed, compiled = warm(names, settings, batch, threads, report, precision)
    seconds = time.perf_counter() - started
    for warning in caught:
        click.echo(f"warning: {warning.message}", err=True)
    if as_json:
        console.print_json({"networks": names, "kernels": needed, "compiled": compiled, "seconds": seconds})
        return
    many = f"{len(names)} network{'s' * (len(names) > 1)}"
    click.echo(f"{many}: {needed} kernels, {compiled} of them compiled now, in {seconds:.1f} s")
