"""Results files: what was measured, on what, by which command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

Record = dict[str, Any]


def write(path: Path | None, machine: Record, results: Any, **more: Any) -> Record:
    """The record of a measurement: machine, commit, command, what else was set, results. Written if a path is given.

    In bench/results all of a file's results come from one run.
    """
    words = [word.removeprefix(f"{ROOT}/") for word in sys.argv[1:]]
    command = " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *words])
    record = {"command": command, "commit": commit(), "machine": machine, **more, "results": results}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return record


def checked(command: Sequence[object], environment: Mapping[str, str] | None = None) -> str:
    """The standard output of a program. Ends this one with its error output where it fails."""
    words = [*map(str, command)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nended with status {done.returncode}\n{done.stderr}")
    return done.stdout


def numbers(text: str) -> list[int]:
    """Whole numbers from a comma-separated list."""
    return [int(word) for word in text.split(",")]


def read(path: Path) -> Record:
    """A results file. Ends the program with a sentence when there is none."""
    if not path.exists():
        sys.exit(f"{path} is missing: measure it first")
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def commit() -> str | None:
    """The commit that is checked out, with "+" when files differ from it; None outside of a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "netdsl") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
