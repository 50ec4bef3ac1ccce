"""A Python process of its own, for what happens once a process: imports, loading, warnings."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def in_fresh_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
