"""Compiles kernels into the cache: `python -m netdsl.backends.cpu.warm JSON`, [[module, factory, constants], …]."""

from __future__ import annotations

import json
import sys

from netdsl.backends.cpu.jit import Kernel, is_cached, load


def main() -> None:
    for module, factory, constants in json.loads(sys.argv[1]):
        kernel = Kernel(module, factory, tuple(constants))
        if not is_cached(kernel):  # another process may have been faster
            load(kernel)


if __name__ == "__main__":
    main()
