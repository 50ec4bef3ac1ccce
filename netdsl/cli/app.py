"""The command group, and how every way of ending becomes an exit status.

0 done; 1 the user's file, weights or input is wrong; 2 wrong usage; 70 a fault of netdsl itself; 130 Ctrl-C; 141 the
reader of the output went away. Nothing but 70 with NETDSL_TRACEBACK=1 set ever shows a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

import netdsl
from netdsl.errors import NetError, nearest

COMMANDS = ("run", "check", "summary", "bench", "profile", "eval", "networks", "fetch", "warm", "tune")


class Commands(click.Group):
    """The subcommands of COMMANDS; the module of each is imported when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            close = nearest(name, COMMANDS)
            hint = f" Did you mean '{close}'?" if close else ""
            raise click.UsageError(f"No command '{name}'.{hint}", context)
        from importlib import import_module

        command: click.Command = import_module(f"netdsl.cli.{name}").command
        return command


_EXIT_STATUS = "Exit status: 0 done, 1 the file, weights or input is wrong, 2 wrong usage."


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_STATUS)
@click.version_option(netdsl.__version__, message="netdsl %(version)s")
def app() -> None:
    """Compile convolutional networks: a text file in, kernels for this very machine out.

    NET is the path of a .net file, or the bare name of a network that ships (see `netdsl networks`).
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line `netdsl arguments…`; the exit status."""
    try:
        return _invoke(list(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _discard()
        return 141


def _invoke(arguments: list[str]) -> int:
    try:
        with app.make_context("netdsl", arguments) as context:
            app.invoke(context)
        _flush()
        return 0
    except click.exceptions.Exit as end:
        _flush()
        return end.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NetError as error:
        click.echo(error.render(), err=True)
        return 1
    except BrokenPipeError:
        raise
    except MemoryError:
        click.echo("netdsl: error: out of memory; try a smaller --batch", err=True)
        return 1
    except OSError as error:
        click.echo(f"netdsl: error: {error}", err=True)
        with suppress(OSError):  # what was printed before may still be written, unless that is what failed
            _flush()
            return 1
        _discard()
        return 1
    except Exception as error:
        if os.environ.get("NETDSL_TRACEBACK"):
            raise
        reason = " ".join(str(error).split())[:300]
        click.echo(
            f"netdsl: internal error: {type(error).__name__}: {reason} (NETDSL_TRACEBACK=1 shows where)", err=True
        )
        return 70


def _discard() -> None:
    """What is still buffered cannot be written: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _flush() -> None:
    """What is still buffered is written now, while a full disk or a reader that went away can be told of."""
    if sys.stdout is not None:  # as it is where the caller closed it
        sys.stdout.flush()
