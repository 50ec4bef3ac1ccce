"""What is installed: every package, every file that is read at run time, and every library that is imported."""

from __future__ import annotations

import ast
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
IMPORTED_AS = {"pillow": "PIL"}  # where a distribution's name is not that of what is imported


def test_every_package_is_listed() -> None:
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "netdsl").rglob("__init__.py")}
    assert set(SETUPTOOLS["packages"]) == found | {"netdsl.grammars", "netdsl.networks"}


def test_every_folder_of_modules_is_a_package() -> None:
    assert all((p.parent / "__init__.py").exists() for p in (ROOT / "netdsl").rglob("*.py"))


@pytest.mark.parametrize("folder", ["grammars", "networks"])
def test_every_data_file_is_installed(folder: str) -> None:
    patterns = SETUPTOOLS["package-data"][f"netdsl.{folder}"]
    for path in (ROOT / folder).rglob("*"):
        name = path.relative_to(ROOT / folder).as_posix()
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(fnmatch(name, p) or fnmatch(name, p.removeprefix("**/")) for p in patterns), name


def distributions(requirements: list[str]) -> set[str]:
    return {d.split(">=")[0] for d in requirements}


def test_what_is_imported_is_what_is_required() -> None:
    required = distributions(PROJECT["project"]["dependencies"])
    compared = distributions(PROJECT["project"]["optional-dependencies"]["bench"])
    imported = set()
    for path in (ROOT / "netdsl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    for extra in ("cuda12", "cuda13"):  # whose package cuda-core is imported as cuda
        assert "cuda-core" in distributions(PROJECT["project"]["optional-dependencies"][extra])
    others = {name for name in imported if name not in sys.stdlib_module_names} - {"netdsl", "llvmlite"}  # Numba's own
    assert others - compared - {"cuda"} == {IMPORTED_AS.get(name, name) for name in required}
