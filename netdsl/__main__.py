"""`python -m netdsl` is the `netdsl` command."""

from netdsl.cli import main

main()
