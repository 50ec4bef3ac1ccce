"""What is kept between processes in the user's cache folder, each kind in a folder of its own.

kernels   machine code                       targets   what LLVM says of the processor
tables    of the parser of texts             tuning    algorithms that `netdsl tune` found fastest
trees     of texts that were read, thinned   weights   downloads

A kept file carries the SHA-256 of its content and appears whole or not at all, so one that is damaged, half-written or
not readable counts as absent.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from netdsl.errors import NetWarning

_MAGIC = b"netdsl-kept-1\n"
_HEAD = len(_MAGIC) + 32  # bytes before the content
_warned = False  # whether it was said that kernels cannot be kept


def folder(kind: str) -> Path:
    """The folder of one kind of files, within $NETDSL_CACHE or else the user's cache folder."""
    root = os.environ.get("NETDSL_CACHE")
    if not root:
        from platformdirs import user_cache_dir

        root = user_cache_dir("netdsl", appauthor=False)
    return Path(root) / kind


def read(path: Path) -> bytes | None:
    """The content of a kept file, or None."""
    from hashlib import sha256

    try:
        with path.open("rb") as file:
            head, content = file.read(_HEAD), file.read()
    except OSError:
        return None
    return content if head == _MAGIC + sha256(content).digest() else None


def write(path: Path, content: bytes) -> None:
    """Keep content, in one step for other processes. Raises OSError."""
    import tempfile
    from hashlib import sha256

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + sha256(content).digest() + content)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def thin_out(folder: Path, most: int, most_bytes: int) -> None:
    """Remove the oldest files of a folder, beyond so many or so many bytes. What cannot be removed stays."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another process removed it
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, entry.path))
    total = 0
    for i, (_, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if i >= most or total > most_bytes:
            with suppress(OSError):
                os.unlink(path)


def check_writable(folder: Path) -> None:
    """Raise OSError unless files can be kept in a folder now."""
    import tempfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(bytes(1 << 16))  # about a kernel: a full disk may still take an empty file


def keep_kernel(path: Path, content: bytes) -> None:
    """Keep a compiled kernel; where that is impossible, say so once in a process and go on."""
    global _warned
    try:
        write(path, content)
    except OSError as error:
        if not _warned:
            import warnings

            _warned = True
            reason = error.strerror or str(error)
            place = f"{path.parent} ({reason})"
            message = f"compiled kernels cannot be kept in {place}, so every process compiles them anew"
            warnings.warn(f"{message}; NETDSL_CACHE names another folder", NetWarning, stacklevel=2)
