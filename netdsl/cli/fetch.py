"""`netdsl fetch`: download published weights."""

from __future__ import annotations

import click

from netdsl.cli import console, options


@click.command("fetch")
@options.network
@options.as_json
def command(net: str, as_json: bool) -> None:
    """Download the published weights of NET into the user's cache, and print where they are.

    A download that was cut goes on where it stopped, and its sha256 is checked. NETDSL_CACHE names another folder.
    """
    from netdsl.graph.build import build
    from netdsl.weights import published

    graph = build(net)
    with console.progress() as report:
        path = published(graph, lambda done, total: report("downloading weights", done, total or 0))
    if as_json:
        console.print_json({"network": graph.name, "path": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(path)
