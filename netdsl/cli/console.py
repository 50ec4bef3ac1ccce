"""What the commands print with: rich on a terminal, plain text where the output is piped."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

_NARROWEST = 8  # chosen: with fewer characters a column, folded cells cannot be read

Report = Callable[[str, int, int], None]  # (what, done, total); a total of 0 is one not known


def print_json(value: Any) -> None:
    """One JSON document on standard output; numbers that are not finite become null, as JSON has none."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """A table; the columns whose indices are in `numbers` are set flush right."""
    if _is_terminal(sys.stdout) and _rich_table(columns, rows, numbers):
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        click.echo("  ".join(cells).rstrip())


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; a closed one is None."""
    return stream is not None and stream.isatty()


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> bool:
    """Print a table no wider than the terminal; False, and nothing printed, where that is too narrow to be read."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if console.width < _NARROWEST * len(columns):
        return False
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="cyan")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    return True


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar on standard error while the block runs; one line for each new `what` where that is no terminal.

    Nothing appears before the first report.
    """
    if _is_terminal(sys.stderr):
        with _bar() as report:
            yield report
        return
    said = set()

    def announce(what: str, done: int, total: int) -> None:
        if what not in said:
            said.add(what)
            click.echo(f"{what} …", err=True)

    yield announce


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = None

    def report(what: str, done: int, total: int) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task(what, total=total or None)
        bar.update(task, description=what, completed=done, total=total or None)

    try:
        yield report
    finally:
        bar.stop()
