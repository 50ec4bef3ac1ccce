"""The processor that kernels are compiled for: its name, features, vector width and register count.

LLVM says what the processor is, once: its answer is kept, as loading it takes a tenth of a second and 50 MB.
`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` are honoured, which is how the narrower widths are tested on a wide machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from netdsl import kept
from netdsl.frozen import frozen

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# The lines of it that tell processors apart, on x86 and on ARM; others change from one moment to the next.
KIND = frozenset((
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
))  # fmt: skip


@frozen
class Target:
    """name, features   as LLVM spells them
    width            float32 lanes of one vector register
    registers        vector registers that one kernel may use
    widens_float16   whether it has an instruction that makes float32 of float16
    """

    name: str
    features: str
    width: int
    registers: int
    widens_float16: bool


@cache
def host() -> Target:
    """The target of this process."""
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    if not name or features is None:
        found = _name_and_features()
        name, features = name or found[0], found[1] if features is None else features
    enabled = {f[1:] for f in features.split(",") if f.startswith("+")}
    if "avx512f" in enabled:
        return Target(name, features, 16, 32, True)
    if "avx2" in enabled and "fma" in enabled:
        return Target(name, features, 8, 16, "f16c" in enabled)
    if platform.machine().lower() in ("aarch64", "arm64"):
        return Target(name, features, 4, 32, True)
    return Target(name, features, 4, 16, "f16c" in enabled)


def _name_and_features() -> tuple[str, str]:
    """What LLVM calls this processor and its features."""
    place = _answer()
    known = kept.read(place) if place else None
    if known is None:
        import llvmlite.binding as llvm

        known = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}".encode()
        if place:
            with suppress(OSError):  # then it is asked each time
                kept.write(place, known)
    name, _, features = known.decode().partition(" ")
    return name, features


def _answer() -> Path | None:
    """Where LLVM's answer for this very kind of processor is kept; None where the system does not say what it is."""
    kind = []
    with suppress(OSError), CPUINFO.open("rb") as lines:
        for line in lines:
            if not line.strip():
                break  # the next processor
            if line.split(b":")[0].strip().decode(errors="replace") in KIND:
                kind.append(line)
    if not kind:
        return None
    digest = hashlib.sha256(b"".join(kind))
    digest.update("\0".join((platform.machine(), platform.release())).encode())  # the kernel decides what it lists
    digest.update(version("llvmlite"))
    return kept.folder("targets") / f"{digest.hexdigest()[:24]}.txt"


def cache_bytes() -> dict[int, int]:
    """The size of each level's cache (of data, at the first one), where the system tells (Linux); else empty."""
    sizes = {}
    units = {"K": 1 << 10, "M": 1 << 20}
    for place in CACHES.glob("index*"):
        with suppress(OSError, ValueError, KeyError):
            if (place / "type").read_text().strip() != "Instruction":
                size = (place / "size").read_text().strip()
                sizes[int((place / "level").read_text())] = int(size[:-1]) * units[size[-1]]
    return sizes


def version(package: str) -> bytes:
    """What the package says of its version, read without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return b""
    file = Path(spec.origin).with_name("_version.py")
    if not file.exists():
        from importlib import metadata

        return metadata.version(package).encode()
    return file.read_bytes()


WIDTH = host().width
VECTOR_BYTES = 4 * WIDTH
FMA_FROM_MEMORY = WIDTH == 16  # whether a multiply-add may read a factor itself: x86, whose vectors alone are so wide
