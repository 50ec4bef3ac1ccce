"""What a network is run on: a file of the user's, or a sample that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netdsl.arrays import as_float32
from netdsl.errors import InputError, WeightsError, nearest
from netdsl.graph import library
from netdsl.graph.ir import InputSpec
from netdsl.images import load_image
from netdsl.ops.base import Array
from netdsl.weights import load

_DIGIT_SIDE = 40  # chosen: a grey square input up to this many pixels a side is taken to want a digit
_LONGEST_PICTURE = 2  # chosen: an input more than this many times longer than wide is taken to be no picture


def read_input(path: str | Path, spec: InputSpec) -> Array:
    """One input from a file: float32 [N, *shape] from .npy or .npz, [1, *shape] from a picture.

    An array file may leave out the batch. From an .npz the array named like the input is taken, else its only one.
    Raises InputError.
    """
    path = Path(path)
    if path.suffix.lower() not in (".npy", ".npz"):
        return load_image(path, spec)
    array = as_float32(_read_arrays(path, spec.name), spec.name)
    return array[None] if array.ndim == len(spec.type.shape) else array


def _read_arrays(path: Path, name: str) -> Array:
    if not path.exists():
        raise InputError("there is no such file", code="no-input", path=str(path))
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        arrays = load(path)
        return arrays[_member(list(arrays), name, path)]
    except WeightsError as error:
        raise InputError(error.message, code="bad-input", path=str(path), hint=error.hint) from None
    except (OSError, ValueError, EOFError, TypeError, SyntaxError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the array cannot be read: {reason}", code="bad-input", path=str(path)) from None


def _member(names: list[str], wanted: str, path: Path) -> str:
    if wanted in names:
        return wanted
    if len(names) == 1:
        return names[0]
    close = nearest(wanted, names)
    hint = f"did you mean {close}?" if close else f"it holds {', '.join(names[:8]) or 'nothing'}"
    raise InputError(f"no array named {wanted} in the file", code="no-input", path=str(path), hint=hint)


def sample_input(spec: InputSpec, seed: int = 0) -> tuple[Array, str]:
    """An input for a network that was given none, float32 [1, *shape], and what it is, in words.

    A handwritten digit for small grey squares, a photo for other pictures, seeded noise for what is no picture.
    """
    shape = spec.type.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or max(shape[1:]) > _LONGEST_PICTURE * min(shape[1:]):
        noise = np.random.default_rng(seed).standard_normal((1, *shape), np.float32)
        return noise, f"random noise (seed {seed})"
    digit = shape[0] == 1 and max(shape[1:]) <= _DIGIT_SIDE and not any(spec.free)
    name = "digit.png" if digit else "photo.jpg"
    return load_image(library.folder() / "samples" / name, spec), f"{name} (a sample that ships)"
