"""The one-way flow: every module imports only from its own stage and the stages before it.

Imports are read from the syntax tree of every module, those inside functions and under TYPE_CHECKING included.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netdsl

PACKAGE = Path(netdsl.__file__).parent

# From left to right; `netdsl/__init__.py` only names what stands elsewhere and `__main__.py` starts the command line.
ORDER = (
    "frozen", "errors", "kept", "helpers", "halves", "tensor", "ops", "text", "graph", "passes", "plan", "profiles",
    "backends", "weights", "images", "datasets", "arrays", "samples", "answers", "catalogue", "model", "compiler",
    "onnx_export", "torch_export", "peers", "benchmark", "lowerings", "plots", "cli",
)  # fmt: skip

# Third-party packages that only one stage may know, by the names they are imported by.
ONLY_IN = {
    "numba": ("backends/cpu/", *(f"backends/cuda/{n}" for n in ("jit.py", "simulator.py", "simt.py", "kernels/"))),
    "llvmlite": ("backends/cpu/", "backends/cuda/kernels/ptx.py"),
    "cuda": tuple(f"backends/cuda/{n}.py" for n in ("device", "driver", "jit", "tensors")),
    "lark": ("text/",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "PIL": ("images.py", "datasets.py"),
    "safetensors": ("weights/",),
    "platformdirs": ("kept.py",),
    "onnx": ("onnx_export.py",),
    "torch": ("torch_export.py", "peers.py"),
    "onnxruntime": ("peers.py",),
    "openvino": ("peers.py",),
    "ncnn": ("peers.py",),
}
NOWHERE = ("tests", "bench", "sklearn", "pytest")


def modules() -> list[str]:
    return sorted(str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py"))


def imports(path: str) -> Iterator[str]:
    """Full names of everything that a module imports."""
    package = ["netdsl", *Path(path).parent.parts]
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def stage(path: str) -> str:
    return Path(path).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [m for m in modules() if m not in ("__init__.py", "__main__.py")])
def test_a_module_imports_only_from_the_left(path: str) -> None:
    assert stage(path) in ORDER, f"{path}: give this stage its place in ORDER"
    allowed = ORDER[: ORDER.index(stage(path)) + 1]
    for name in imports(path):
        if name.split(".")[0] != "netdsl" or name == "netdsl.__version__":
            continue
        target = name.split(".")[1] if "." in name else None
        if target is None:
            assert stage(path) == "cli", f"{path} imports the package itself"
        elif target not in ("grammars", "networks"):
            assert target in allowed, f"{path} imports {name}, which comes after {stage(path)}"


@pytest.mark.parametrize("path", modules())
def test_a_third_party_package_stays_in_its_stage(path: str) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in NOWHERE, f"{path} imports {name}"
        if top in ONLY_IN:
            assert path.startswith(ONLY_IN[top]), f"{path} imports {name}"


@pytest.mark.parametrize("path", modules())
def test_no_module_prints(path: str) -> None:
    """The command line speaks through click, everything else returns or raises."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls


def test_backends_do_not_know_each_other() -> None:
    for path in modules():
        parts = Path(path).parts
        if parts[0] == "backends" and len(parts) > 2:
            others = {n.split(".")[2] for n in imports(path) if n.startswith("netdsl.backends.")} - {parts[1]}
            assert not others, f"{path} imports {others}"


def test_numba_cuda_stays_behind_its_doors() -> None:
    """The compiler in one module, its simulator, the language of kernels, and the machine's own words in one each."""
    doors = {f"backends/cuda/{name}.py" for name in ("jit", "simulator", "simt", "kernels/ptx")}
    found = {path for path in modules() if any(f"{name}.".startswith("numba.cuda.") for name in imports(path))}
    assert found == doors


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after running `code`."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_other_engines_are_loaded_only_to_be_compared_with() -> None:
    loaded = loaded_by("import netdsl, netdsl.benchmark, netdsl.plots\nnetdsl.compile('lenet5')")
    assert not loaded & {"onnx", "onnxruntime", "openvino", "ncnn", "torch"}


def test_importing_the_package_loads_next_to_nothing() -> None:
    loaded = loaded_by("import netdsl, netdsl.cli")
    assert not loaded & {"numpy", "numba", "lark", "click", "rich", "PIL"}


def test_help_loads_no_arrays_and_no_compiler() -> None:
    loaded = loaded_by("import netdsl.cli.app\nassert netdsl.cli.app.run(['--help']) == 0")
    assert not loaded & {"numpy", "numba", "lark", "PIL"}


@pytest.mark.parametrize("command", ["['check', 'lenet5']", "['networks']"])
def test_commands_that_compile_nothing_never_load_numba(command: str) -> None:
    loaded = loaded_by(f"import netdsl.cli.app\nassert netdsl.cli.app.run({command}) == 0")
    assert not loaded & {"numba", "llvmlite"}


def test_a_summary_asks_llvm_for_the_processor_and_never_loads_numba() -> None:
    assert "numba" not in loaded_by("import netdsl.cli.app\nassert netdsl.cli.app.run(['summary', 'lenet5']) == 0")


def test_building_a_graph_never_loads_numba() -> None:
    assert not loaded_by("import netdsl\nnetdsl.build('lenet5').macs") & {"numba", "llvmlite"}


def test_asking_for_a_gpu_imports_nothing_that_runs_on_one() -> None:
    code = "import sys, netdsl.model\nif netdsl.model.choose_device('auto') == 'cpu':\n"
    loaded_by(code + "    assert not any(name in sys.modules for name in ('netdsl.backends.cuda.program', 'email'))")


def test_every_public_name_is_there() -> None:
    for name in netdsl.__all__:
        assert getattr(netdsl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        netdsl.nothing  # noqa: B018
