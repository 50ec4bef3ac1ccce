"""What `netdsl tune` found fastest on this machine, by a convolution's geometry: kept in the user's cache folder.

One file for each processor, version of the kernels and number of threads (a small network's batch that is cut by images
runs on one thread each, and takes the choices of one). A file that is damaged, or holds something else, counts as
absent; an entry that is no choice is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from netdsl import kept
from netdsl.backends.cpu import jit
from netdsl.ops.conv import Conv
from netdsl.ops.deconv import Deconv
from netdsl.tensor import TensorType

MOST_BYTES = 1 << 20  # chosen: of a file; some ten thousand geometries


def geometry(op: Conv | Deconv, x: TensorType, images: int) -> str:
    """What the fastest way to run a convolution depends on, in words."""
    turned, pads = ("transposed ", (*op.pad, *op.output_pad)) if isinstance(op, Deconv) else ("", op.pad)
    kernel, pad = turned + "x".join(map(str, op.kernel)), ",".join(map(str, pads))
    stride = "" if op.stride == (1, 1) else " stride " + "x".join(map(str, op.stride))
    return f"{kernel}{stride} from {x.channels}x{x.height}x{x.width} to {op.features}, pad {pad}, batch {images}"


def path(threads: int) -> Path:
    """The file for so many threads on this processor."""
    return kept.folder("tuning") / f"{jit.environment()}-{threads}.json"


def choices(threads: int) -> dict[str, int]:
    """By geometry, the m of Winograd's F(m x m, r x r) or 0 for the direct kernel, as found with so many threads."""
    file = path(threads)
    try:
        if file.stat().st_size > MOST_BYTES:
            return {}
        found = json.loads(kept.read(file) or b"{}")
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {where: m for where, m in found.items() if type(m) is int}


def keep(threads: int, found: Mapping[str, int], measured: Iterable[str]) -> Path:
    """Put what was found in the file for so many threads, in place of what it said of all that was measured.

    Raises OSError.
    """
    file, before = path(threads), choices(threads)
    for where in measured:
        before.pop(where, None)
    if found or file.exists():
        kept.write(file, json.dumps(before | dict(found), indent=1, sort_keys=True).encode())
    return file
