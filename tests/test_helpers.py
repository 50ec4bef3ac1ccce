"""Processes that compile beside this one: whatever becomes of them, every kernel is compiled, once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netdsl import helpers

KERNELS = [f"kernel{i}" for i in range(6)]

FIRST = "read line; echo done; touch first"  # a helper's first kernel, after which this process goes on
HELPERS = {  # what a helper does, in the shell; it answers a line with a line
    "hangs at once": "exec sleep 600",
    "hangs after its first": f"{FIRST}; exec sleep 600",
    "is stopped": "kill -STOP $$; exec sleep 600",
    "ends at once": "exit 0",
    "fails after its first": f"{FIRST}; exit 1",
}


def compile_all(load: Callable[[str], Any]) -> None:
    compiler = helpers.Compiler("nobody", lambda kernel: [kernel], load, processes=4, patience=0.2)
    compiler.compile_all(KERNELS, lambda kernel: None)


@pytest.fixture
def compile_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """compile_with(script): the kernels that this process compiled beside one helper that is a shell script."""

    def compiled(script: str) -> list[str]:
        here: list[str] = []
        end = time.monotonic() + 60

        def load(kernel: str) -> None:
            here.append(kernel)
            while FIRST in script and not (tmp_path / "first").exists() and time.monotonic() < end:
                time.sleep(0.01)

        started: list[Any] = []
        process = subprocess.Popen

        def popen(command: list[str], **pipes: Any) -> Any:
            started.append(process(["/bin/sh", "-c", script], cwd=tmp_path, **pipes))
            return started[-1]

        monkeypatch.setattr(helpers.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
        monkeypatch.setattr(helpers.subprocess, "Popen", popen)
        compile_all(load)
        assert len(started) == 1 and started[0].returncode is not None  # it ended, and was waited for
        return here

    return compiled


@pytest.mark.parametrize("fate", HELPERS)
def test_what_a_helper_does_not_deliver_is_compiled_here(compile_with: Callable[[str], list[str]], fate: str) -> None:
    delivered = "first" in fate
    here = compile_with(HELPERS[fate])
    assert len(here) == len(set(here)) == len(KERNELS) - delivered and set(here) <= set(KERNELS)


def test_a_helper_takes_its_share(compile_with: Callable[[str], list[str]]) -> None:
    here = compile_with(f"{FIRST}; while read line; do echo done; done")
    assert len(here) == len(set(here)) < len(KERNELS)


@pytest.mark.parametrize("executable", ["/no/such/file", ""])
def test_without_helpers_all_is_compiled_here(executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[str] = []
    monkeypatch.setattr(helpers.sys, "executable", executable)
    monkeypatch.setattr(helpers.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    compile_all(here.append)
    assert here == KERNELS


def test_where_nothing_can_be_kept_there_are_no_helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path))
    here: list[str] = []
    monkeypatch.setattr(helpers.subprocess, "Popen", lambda *_, **__: pytest.fail("a helper was started"))
    monkeypatch.setattr(helpers.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    compile_all(here.append)
    assert here == KERNELS
