"""`netdsl check`: every error of a network's text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from netdsl.cli import console, options
from netdsl.errors import Diagnostic, InputError, NetError, SourceError


@click.command("check")
@click.argument("nets", metavar="NET…", nargs=-1, required=True)
@options.as_json
@click.pass_context
def command(context: click.Context, nets: tuple[str, ...], as_json: bool) -> None:
    """Report every error of each NET, with its place and a way out. A folder stands for all .net files in it."""
    results = [(net, *_check(net)) for given in nets for net in _expand(given)]
    if as_json:
        console.print_json([{"file": net, "ok": not faults, "errors": faults} for net, faults, _ in results])
    else:
        for net, faults, text in results:
            click.echo(f"{text}\n" if faults else f"{net}: OK, {text}")
        wrong = sum(1 for _, faults, _ in results if faults)
        if wrong:
            count = sum(len(faults) for _, faults, _ in results)
            click.echo(f"{count} error{'s' * (count > 1)} in {wrong} of {len(results)} file{'s' * (len(results) > 1)}")
    context.exit(int(any(faults for _, faults, _ in results)))


def _expand(net: str) -> list[str]:
    if not net or not Path(net).is_dir():
        return [net]
    found = sorted(map(str, Path(net).rglob("*.net")))
    if not found:
        raise InputError("there is no .net file in this folder", code="no-network", path=net)
    return found


def _check(net: str) -> tuple[list[dict[str, Any]], str]:
    """The faults of one network, and them in words, or what is right about it."""
    from netdsl.graph.build import check

    try:
        graph = check(net)
    except SourceError as error:
        return [_fault(d) for d in error.diagnostics], error.render()
    except NetError as error:
        record: dict[str, Any] = {"code": error.code, "message": error.message, "file": error.path, "line": error.line,
                  "column": error.column, "hint": error.hint, "chain": []}  # fmt: skip
        return [record], error.render()
    if graph is None:
        return [], "blocks only"
    return [], f"{graph.name}, {graph.parameters:,} parameters, {graph.macs:,} multiply-accumulates"


def _fault(diagnostic: Diagnostic) -> dict[str, Any]:
    span = diagnostic.span
    return {
        "code": diagnostic.code, "message": diagnostic.message,
        "file": span.source.name, "line": span.line, "column": span.column, "hint": diagnostic.hint,
        "chain": [{"block": call.block, "file": call.span.source.name, "line": call.span.line,
                   "column": call.span.column} for call in diagnostic.chain],
    }  # fmt: skip
