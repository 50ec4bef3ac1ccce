"""Which kind of weights file this is, by its content."""

from __future__ import annotations

from pathlib import Path

from netdsl.errors import WeightsError
from netdsl.weights import safetensors
from netdsl.weights.tensors import Entry, Tensors, WeightsFile

PICKLE_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".pkl", ".ckpt")
READABLE = ".safetensors, .npz, and PyTorch checkpoints (.pth .pt .th .bin) are read"
FOREIGN = {  # first bytes of files that people hand over by mistake
    b"\x93NUMPY": "a single NumPy array; put the named arrays into one .npz",
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    b"<": "a web page or XML text; a download went wrong",
    b"\x08": "probably an ONNX model",
}


def load(path: str | Path) -> Tensors:
    """The named tensors of a weights file, chosen by content: safetensors, npz, or a PyTorch checkpoint.

    The file is mapped, not copied: floating-point tensors come as float32 (read-only views where the file stores them
    so), each when it is asked for. Nothing from the file is ever executed, and PyTorch is not needed.

    Raises WeightsError with code weights-missing-file, weights-unreadable, weights-format, weights-truncated,
    weights-unsafe (the file asks for code to be run) or weights-too-large.
    """
    file = WeightsFile(path)
    if safetensors.looks_like(file):  # so that this, the common case, loads no reader of other formats
        return Tensors(file.path, safetensors.read(file))
    return Tensors(file.path, _other(file))


def _other(file: WeightsFile) -> dict[str, Entry]:
    from netdsl.weights import archive, checkpoint, npz

    suffix = Path(file.path).suffix.lower()
    if archive.looks_like(file):
        members = archive.members(file)
        return checkpoint.read_zip(file, members) if checkpoint.in_archive(members) else npz.read(file, members)
    if suffix == ".safetensors":
        return safetensors.read(file)
    if checkpoint.looks_like_pickle(file) or (suffix in PICKLE_SUFFIXES and not _foreign(file)):
        return checkpoint.read_pickled(file)
    raise _unknown(file)


def _foreign(file: WeightsFile) -> str | None:
    return next((what for magic, what in FOREIGN.items() if file.data[: len(magic)] == magic), None)


def _unknown(file: WeightsFile) -> WeightsError:
    return file.fault("weights-format", f"not a weights file: {_foreign(file) or 'unknown content'}", hint=READABLE)
