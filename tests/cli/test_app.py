"""How commands end: exit statuses, no traceback, quiet on Ctrl-C and closed pipes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from cli.conftest import Netdsl
from netdsl.cli import app

COMMAND = [sys.executable, "-m", "netdsl"]


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--version",), *((c, "--help") for c in app.COMMANDS)])
def test_help_and_version_end_with_0(netdsl: Netdsl, arguments: tuple[str, ...]) -> None:
    done = netdsl(*arguments)
    assert (done.status, done.err) == (0, "")
    assert done.out


def test_help_lists_every_command_with_what_it_does(netdsl: Netdsl) -> None:
    lines = netdsl("--help").out.splitlines()
    for name in app.COMMANDS:
        assert any(line.split()[:1] == [name] and len(line.split()) > 3 for line in lines), name


@pytest.mark.parametrize(
    "arguments",
    [("rum",), ("run",), ("check",), ("run", "a", "b"), ("run", "lenet5", "--no-such"), ("run", "lenet5", "--top", "x"),
     ("run", "lenet5", "--top", "0"), ("run", "lenet5", "--batch", "-1"), ("run", "lenet5", "--device", "tpu"),
     ("run", "lenet5", "--threads", "0"), ("run", "lenet5", "--set", "classes"), ("run", "lenet5", "--set", "=3"),
     ("eval", "lenet5")],
)  # fmt: skip
def test_wrong_usage_ends_with_2(netdsl: Netdsl, arguments: tuple[str, ...]) -> None:
    done = netdsl(*arguments)
    assert (done.status, done.out) == (2, "")
    assert "Error:" in done.err


def test_a_misspelt_command_gets_a_suggestion(netdsl: Netdsl) -> None:
    assert "Did you mean 'run'?" in netdsl("rum").err


@pytest.mark.parametrize("command", ["run", "summary", "fetch"])
def test_a_network_that_is_not_there_ends_with_1(netdsl: Netdsl, command: str) -> None:
    done = netdsl(command, "resnet81")
    assert (done.status, done.out) == (1, "")
    assert "resnet81" in done.err
    assert "resnet18" in done.err


def test_a_wrong_text_ends_with_1_and_its_place(netdsl: Netdsl, tmp_path: Path) -> None:
    path = tmp_path / "wrong.net"
    path.write_text("netdsl 1\nnet wrong() {\n  input image 1x8x8\n  convv 3 3x3\n}\n")
    for command in ("run", "summary"):
        done = netdsl(command, path)
        assert done.status == 1
        assert f"{path}:4:3: error[" in done.err
        assert "    4 |   convv 3 3x3" in done.err


@click.command()
@click.option("--fault", type=str)
def faulty(fault: str) -> None:
    raise {"internal": KeyError("x\ny"), "memory": MemoryError(), "disk": OSError(28, "No space left on device")}[fault]


@pytest.mark.parametrize(("fault", "status"), [("internal", 70), ("memory", 1), ("disk", 1)])
def test_a_fault_is_one_line(netdsl: Netdsl, monkeypatch: pytest.MonkeyPatch, fault: str, status: int) -> None:
    monkeypatch.setattr(app.Commands, "get_command", lambda *_: faulty)
    monkeypatch.delenv("NETDSL_TRACEBACK", raising=False)
    done = netdsl("faulty", "--fault", fault)
    assert done.status == status
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("netdsl: ")


def test_an_internal_fault_shows_where_when_asked(netdsl: Netdsl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.Commands, "get_command", lambda *_: faulty)
    monkeypatch.setenv("NETDSL_TRACEBACK", "1")
    with pytest.raises(KeyError):
        netdsl("faulty", "--fault", "internal")


def started(command: list[str], **more: Any) -> subprocess.Popen[str]:
    """A process that Ctrl-C reaches, even where the tests themselves run in the background, which ignores it."""
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=hears, **more)


def test_ctrl_c_ends_quietly_with_130(tmp_path: Path) -> None:
    pipe = tmp_path / "picture.png"
    os.mkfifo(pipe)
    command = [*COMMAND, "run", "lenet5", "--input", str(pipe)]
    process = started(command)
    with pipe.open("wb"):  # opens when the command opens the other end; it then waits for bytes that never come
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_ctrl_c_while_kernels_compile_ends_quietly_too(tmp_path: Path) -> None:
    environment = {**os.environ, "NETDSL_CACHE": str(tmp_path)}
    command = [*COMMAND, "run", "lenet5"]
    process = started(command, env=environment)
    assert process.stderr is not None
    assert process.stderr.readline() == "compiling kernels …\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_reader_that_went_away_ends_quietly() -> None:
    command = [*COMMAND, "summary", "lenet5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, "")


def test_a_full_disk_under_the_output_is_one_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("w") as file:
        done = subprocess.run([*COMMAND, "--version"], stdout=file, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_gets_a_table_of_its_width_in_colour_unless_it_wants_none(colour: bool) -> None:
    pty = pytest.importorskip("pty")
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "72"} | ({} if colour else {"NO_COLOR": "1"})
    master, slave = pty.openpty()
    with subprocess.Popen([*COMMAND, "summary", "lenet5"], stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        text = read_all(master)
    assert process.returncode == 0
    assert ("\x1b[36m" in text) == colour
    ruled = [line for line in text.splitlines() if "─" in line]
    assert ruled and all(len(line) <= 72 for line in ruled)


def test_a_terminal_too_narrow_for_columns_gets_plain_lines() -> None:
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "12"}
    with subprocess.Popen([*COMMAND, "summary", "lenet5"], stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        text = read_all(master)
    assert process.returncode == 0
    assert "6x28x28" in text and "receptive field" in text


@pytest.mark.parametrize(
    ("closed", "arguments", "status"),
    [("1", ("networks",), 0), ("1", ("--version",), 0), ("2", ("run", "no_such"), 1), ("2", ("summary", "lenet5"), 0)],
)
def test_a_stream_that_the_caller_closed_is_no_fault(closed: str, arguments: tuple[str, ...], status: int) -> None:
    line = shlex.join([*COMMAND, *arguments])
    done = subprocess.run(["sh", "-c", f"{line} {closed}>&-"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, "")


def read_all(terminal: int) -> str:
    """Everything that comes through the master end of a pseudo-terminal."""
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    return shown.decode()
