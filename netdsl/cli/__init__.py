"""The `netdsl` command: one file per subcommand, each a thin face of the Python API.

Importing this starts nothing; a subcommand imports what it needs when it runs.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

COLLECT_AFTER = 100_000  # chosen: objects made and not freed; one command on one network makes fewer


def main() -> None:
    """Entry point of the console script; ends the process with the exit status of `netdsl.cli.app.run`.

    What a command makes it needs to its end. Looking for garbage among it, ever again and at the end, would take a
    tenth of a second.
    """
    gc.set_threshold(COLLECT_AFTER)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from netdsl.cli.app import run

    status = run(sys.argv[1:])
    gc.freeze()  # nothing of it is garbage for the interpreter's last collections either
    sys.exit(status)


def _interrupted(*_: object) -> None:
    """Ctrl-C. Ends here and now: a KeyboardInterrupt would be lost where it falls into one of LLVM's callbacks."""
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(130)
