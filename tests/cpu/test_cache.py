"""The kernel cache: whatever becomes of it, the answer is right, and at most one warning is given."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fresh import in_fresh_process
from netdsl import kept
from netdsl.backends.cpu import jit

# A whole network, compiled in this process alone and compared with its definition. Prints whether it had to compile.
RUN = """
    import sys
    import numpy as np
    from netdsl.backends import cpu, reference
    from netdsl.graph.build import build
    graph = build("netdsl 1\\nnet sample {\\n  input x 3x4x5\\n  tanh\\n}\\n")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    (found,), (expected,) = cpu.lower(graph, {}, 1)([x]), reference.run(graph, {}, [x])
    assert np.allclose(found, expected, atol=1e-6)
    print("compiled" if "numba" in sys.modules else "cached")
"""


def ran(folder: Path, before: str = "", warnings: int = 0, **environment: str) -> str:
    """Whether the network above was compiled or cached; its answer was right, and so many warnings were given."""
    done = in_fresh_process(before + RUN, NETDSL_CACHE=str(folder), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Warning") == warnings, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    assert ran(folder) == "compiled"
    return folder


@pytest.fixture
def cache(filled: Path, tmp_path: Path) -> Path:
    """A cache that holds the network's kernels, free to be damaged."""
    return shutil.copytree(filled, tmp_path / "cache")


def kernels(folder: Path, pattern: str = "*.o") -> list[Path]:
    return sorted((folder / "kernels").glob(pattern))


def test_a_second_process_loads_no_numba(cache: Path) -> None:
    assert ran(cache) == "cached"


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="elsewhere LLVM links kernels")
def test_a_second_process_loads_no_llvm(cache: Path) -> None:
    done = in_fresh_process(RUN + "    assert 'llvmlite' not in sys.modules", NETDSL_CACHE=str(cache))
    assert done.returncode == 0, done.stderr


DAMAGES = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "flipped": lambda whole: whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    "empty": lambda whole: b"",
    "another file": lambda whole: b"\x7fELF" + bytes(9000),
    "longer": lambda whole: whole + b"more",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew(cache: Path, damage: str) -> None:
    file = kernels(cache)[0]
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    assert ran(cache) == "compiled"
    assert kept.read(file) is not None and ran(cache) == "cached"


def test_a_crash_while_writing_leaves_no_half_kernel(tmp_path: Path) -> None:
    crash = """
    import os
    replace = os.replace
    os.replace = lambda part, whole: os._exit(9) if whole.suffix == ".o" else replace(part, whole)
    """
    done = in_fresh_process(crash + RUN, NETDSL_CACHE=str(tmp_path))
    assert done.returncode == 9 and kernels(tmp_path, "*.part")
    assert ran(tmp_path) == "compiled" and ran(tmp_path) == "cached"


def test_two_processes_at_once_share_an_empty_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(RUN)]
    environment = os.environ | {"NETDSL_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = set()
    for process in both:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
        said.add(out.strip())
    assert "compiled" in said <= {"compiled", "cached"}  # one that starts late may find all done
    assert not kernels(tmp_path, "*.part") and ran(tmp_path) == "cached"


@pytest.mark.skipif("x86" not in os.uname().machine, reason="these features are x86's")
def test_another_processor_has_kernels_of_its_own(cache: Path) -> None:
    before = kernels(cache)
    features = "+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+sse,+cx8,+mmx,+fxsr,+popcnt,-avx,-avx2,-avx512f"
    other = {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": features}
    assert ran(cache, **other) == "compiled" and set(before) < set(kernels(cache))
    assert ran(cache, **other) == "cached" and ran(cache) == "cached"


@pytest.fixture
def unkeyed() -> Iterator[None]:
    jit.environment.cache_clear()
    yield
    jit.environment.cache_clear()


def test_the_key_names_numbas_version(unkeyed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jit.environment()
    jit.environment.cache_clear()
    monkeypatch.setattr(jit, "version", lambda package: b"0.0")
    assert jit.environment() != before


def test_the_key_covers_the_text_of_kernels(unkeyed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, sources = jit.environment(), jit._sources()
    assert {"jit.py", "simd.py", "conv.py", "execute.py"} <= {path.name for path in sources}
    changed = tmp_path / sources[0].name
    changed.write_bytes(sources[0].read_bytes() + b"# another version\n")
    jit.environment.cache_clear()
    monkeypatch.setattr(jit, "_sources", lambda: [changed, *sources[1:]])
    assert jit.environment() != before


def test_versions_are_read_without_importing(tmp_path: Path) -> None:
    from importlib import metadata

    assert metadata.version("numba") in jit.version("numba").decode()
    done = in_fresh_process("import sys\nfrom netdsl.backends.cpu import jit\njit.environment()\n"
                            "assert 'numba' not in sys.modules")  # fmt: skip
    assert done.returncode == 0, done.stderr


UNWRITABLE = {
    "read-only": """
    import tempfile
    def refuse(**place): raise OSError(30, "Read-only file system")
    tempfile.mkstemp = refuse
    """,
    "full": """
    import os
    def full(handle, mode):
        file = open(handle, mode, buffering=0)
        class Full:
            __enter__ = lambda self: self
            __exit__ = lambda self, *error: file.close()
            def write(self, data):
                file.write(data[:100])
                raise OSError(28, "No space left on device")
        return Full()
    os.fdopen = full
    """,
    "limited": """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    """,
}


@pytest.mark.parametrize("disk", UNWRITABLE)
def test_a_disk_that_takes_nothing_costs_one_warning(tmp_path: Path, disk: str) -> None:
    for _ in range(2):
        assert ran(tmp_path, UNWRITABLE[disk], warnings=1) == "compiled"
    assert not list((tmp_path / "kernels").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_folder_without_rights_costs_one_warning(cache: Path) -> None:
    kernels(cache)[0].unlink()
    (cache / "kernels").chmod(0o500)
    try:
        assert ran(cache, warnings=1) == "compiled"
    finally:
        (cache / "kernels").chmod(0o700)


def test_a_file_where_the_folder_should_be_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("no folder")
    assert ran(tmp_path, warnings=1) == "compiled"


def test_a_folder_where_a_kernel_should_be_costs_one_warning(cache: Path) -> None:
    place = kernels(cache)[0]
    place.unlink()
    (place / "taken").mkdir(parents=True)
    assert ran(cache, warnings=1) == "compiled"
