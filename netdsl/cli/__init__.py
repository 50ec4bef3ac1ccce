"""The `netdsl` command: one file per subcommand, each a thin face of the Python API.

Importing this starts nothing; a subcommand imports what it needs when it runs.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script; ends the process with the exit status of `netdsl.cli.app.run`."""
    try:
        from netdsl.cli.app import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
