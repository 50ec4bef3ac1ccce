"""What the documents show is what happens: their blocks are run, in order, in a folder that has `networks/` in it.

```netdsl file=NAME   is written to NAME
```bash               is run line by line where a line starts with netdsl, to end with status N of `exit=N`
```text               after a bash block is its output, where … stands for anything
```python             is run; later blocks of a document see the names of earlier ones
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/tutorial.md", "docs/rewrites.md")

Block = tuple[str, dict[str, str], str, int]  # language, attributes, text, line


def blocks(document: str) -> Iterator[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", text, re.M | re.S):
        attributes = dict(word.split("=", 1) for word in match[2].split())
        yield match[1], attributes, match[3], text.count("\n", 0, match.start()) + 1


def run(commands: str, status: int, folder: Path) -> str:
    """The standard output of the `netdsl` lines of a block, then their standard error."""
    output = ""
    for line in commands.splitlines():
        if line.split()[:1] != ["netdsl"]:
            continue
        command = [sys.executable, "-m", "netdsl", *shlex.split(line, comments=True)[1:]]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        output += done.stdout + done.stderr
    return output


def matches(expected: str, output: str) -> bool:
    pattern = ".*".join(map(re.escape, expected.strip().split("…")))
    return re.fullmatch(pattern, output.strip(), re.S) is not None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_runs(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks").symlink_to(ROOT / "networks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    names: dict[str, Any] = {}
    output = ""
    for language, attributes, text, line in blocks(document):
        if language == "netdsl" and "file" in attributes:
            Path(attributes["file"]).write_text(text, encoding="utf-8")
        elif language == "bash":
            output = run(text, int(attributes.get("exit", "0")), tmp_path)
        elif language == "text":
            assert matches(text, output), f"{document}:{line}: the output is\n{output}"
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * line + text, document, "exec"), names)


def test_the_documents_have_blocks() -> None:
    assert all(sum(1 for _ in blocks(document)) >= 3 for document in DOCUMENTS)


def test_what_is_to_be_run_on_a_gpu_exists() -> None:
    """The commands themselves need a card; their programs, folders and options are looked up."""
    commands = [text for language, _, text, _ in blocks("docs/gpu.md") if language == "bash"]
    seen = set()
    for line in "".join(commands).splitlines():
        words = shlex.split(line)
        if words[0] == "netdsl":
            done = subprocess.run([sys.executable, "-m", "netdsl", words[1], "--help"], capture_output=True, text=True)
            options = done.stdout
        elif words[1:] and words[1].endswith(".py"):
            options = (ROOT / words[1]).read_text(encoding="utf-8")
        else:
            assert all((ROOT / word).exists() for word in words if word.startswith("tests"))
            continue
        seen.add(words[1])
        assert all(word in options for word in words if word.startswith("--"))
    assert seen == {"run", "bench", "profile", "bench/cuda_ladder.py", "bench/cuda_peers.py"}


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS, "ARCHITECTURE.md", "CHANGELOG.md", "docs/how-it-runs.md", "docs/gpu.md"],
)
def test_links_inside_the_project_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"
