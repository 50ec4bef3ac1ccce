"""Published weights: downloaded into the user's cache, resumable, checked by their sha256."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import re
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from netdsl import kept
from netdsl.errors import FetchError
from netdsl.graph.ir import Graph, WeightsSpec
from netdsl.weights.tensors import shown

MAX_BYTES = 4 << 30  # chosen: seven times VGG-19's file
CHUNK = 1 << 18  # bytes; chosen: a progress call every few milliseconds
TIMEOUT = 30.0  # seconds without a byte; chosen
MIN_DIGITS = 8  # hex digits of the sha256; as many as PyTorch's file names carry
NAME_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
SAFE_NAME = re.compile(r"[\w][\w.+-]{0,120}", re.ASCII)

Progress = Callable[[int, int | None], None]


def cache_dir() -> Path:
    """The folder that downloads go to: `weights` in NETDSL_CACHE, or else in the user's cache folder."""
    return kept.folder("weights")


@dataclass(frozen=True)
class Download:
    """What is fetched, and the place it goes to."""

    url: str
    digits: str  # that the sha256 begins with
    target: Path

    @property
    def part(self) -> Path:
        """What has come so far; a later attempt goes on from there."""
        return self.target.with_name(self.target.name + ".part")

    def fault(self, code: str, message: str, hint: str | None = None) -> FetchError:
        return FetchError(message, code=code, path=self.url, hint=hint)


def fetch(spec: WeightsSpec | Graph, progress: Progress | None = None) -> Path:
    """The published weights as a local file: from the cache, or downloaded into it.

    A download that was cut goes on where it stopped. The file enters the cache under its name only when its sha256
    begins with the digits that the network states (or that its name carries). Several processes may ask at once: one
    downloads, the others wait.

    spec       a network, or its `weights` line
    progress   called with the bytes that have come and the bytes in all (None where the server does not say)

    Raises FetchError: fetch-nothing, fetch-url, fetch-no-digits, fetch-no-network, fetch-status, fetch-redirect,
    fetch-cut, fetch-too-large, fetch-wrong-hash, fetch-disk-full, fetch-cache.
    """
    job = _job(spec)
    try:
        if job.target.is_file():
            return job.target
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(job.target.with_name(job.target.name + ".lock")):
            if not job.target.is_file():  # nobody finished it while this process waited
                _complete(job, progress)
    except OSError as error:
        raise _disk_fault(job, error) from None
    return job.target


def _job(spec: WeightsSpec | Graph) -> Download:
    where = spec.weights if isinstance(spec, Graph) else spec
    if where is None or where.url is None:
        raise FetchError("the network names no weights that could be downloaded", code="fetch-nothing")
    try:
        url = urllib.parse.urlsplit(where.url)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    name = urllib.parse.unquote(url.path.rpartition("/")[2]) if usable else ""
    if not usable or not SAFE_NAME.fullmatch(name) or not where.url.isascii() or not where.url.isprintable():
        raise FetchError("not an http or https address of a file", code="fetch-url", path=where.url)
    carried = NAME_DIGITS.search(name)
    digits = (where.sha256 or (carried[1] if carried else "")).lower()
    if not re.fullmatch(f"[0-9a-f]{{{MIN_DIGITS},64}}", digits):
        message = f"no sha256 of at least {MIN_DIGITS} hex digits is stated for it"
        raise FetchError(message, code="fetch-no-digits", path=where.url, hint='weights "URL" sha256="..."')
    key = hashlib.sha256(f"{where.url} {digits}".encode()).hexdigest()[:16]  # another's file of that name cannot clash
    return Download(where.url, digits, cache_dir() / key / name)


def _complete(job: Download, progress: Progress | None) -> None:
    """Download what is missing, check it, and give it its name. A part that turns out wrong is fetched anew, once."""
    resumed = job.part.exists() and job.part.stat().st_size > 0
    _receive(job, progress)
    if resumed and not _sha256(job.part).startswith(job.digits):  # it may have been of another version
        job.part.unlink()
        _receive(job, progress)
    found = _sha256(job.part)
    if not found.startswith(job.digits):
        job.part.unlink()
        message = f"its sha256 begins with {found[: len(job.digits)]}, not with {job.digits}; it was thrown away"
        raise job.fault("fetch-wrong-hash", message, hint="the file at this address is not the published one")
    os.replace(job.part, job.target)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _receive(job: Download, progress: Progress | None) -> None:
    """Bring the part to its full length."""
    with open(job.part, "ab") as file:
        have = file.tell()
        reply = _open(job, have)
        if reply is None:  # the part is as long as the file already
            return
        with reply:
            start, total = _extent(job, reply)
            if start != have:  # the server sends the whole file, or something else than was asked for
                file.truncate(0)
            if start not in (0, have):
                raise job.fault("fetch-status", "the server sent another part of the file than asked", "try again")
            _check_room(job, start, total)
            _copy(job, reply, file, start, total, progress)


def _open(job: Download, have: int) -> Any:
    """The server's reply to a request for everything from byte `have` on; None if there is nothing more."""
    headers = {"User-Agent": "netdsl", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        return _opener(job).open(urllib.request.Request(job.url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        if error.code // 100 == 3:  # what urllib itself does not follow
            message = "the server redirects without end, or to something else than an http or https address"
            raise job.fault("fetch-redirect", message) from None
        hint = "the file is not there any more" if error.code in (404, 410) else None
        raise job.fault("fetch-status", f"the server answered {error.code} {shown(str(error.reason))}", hint) from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a host name that cannot be encoded
        reason = getattr(error, "reason", None) or error or type(error).__name__
        hint = "check the connection; a copy of the file can be given with --weights FILE"
        raise job.fault("fetch-no-network", f"the server cannot be reached: {shown(str(reason))}", hint) from None


def _opener(job: Download) -> urllib.request.OpenerDirector:
    """Follows redirects between http and https addresses only, and never from https to http."""

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
        ) -> urllib.request.Request | None:
            scheme = urllib.parse.urlsplit(newurl).scheme
            if scheme != "https" and (scheme != "http" or req.type == "https"):
                fp.close()
                raise job.fault("fetch-redirect", f"the server redirects to {shown(newurl)}, which is not followed")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, Redirects,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _extent(job: Download, reply: Any) -> tuple[int, int | None]:
    """The byte at which the reply starts (-1: not said), and the length of the whole file if the server says it."""
    start: int = 0
    total: int | None = None
    length = reply.headers.get("Content-Length", "")
    if reply.status == http.HTTPStatus.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", reply.headers.get("Content-Range", ""))
        start, total = (int(span[1]), None if span[3] == "*" else int(span[3])) if span else (-1, None)
    if total is None and re.fullmatch(r"\d{1,18}", length):
        total = start + int(length)
    if total is not None and total > MAX_BYTES:
        raise job.fault("fetch-too-large", f"the file has {total} bytes; at most {MAX_BYTES} are fetched")
    return start, total


def _check_room(job: Download, start: int, total: int | None) -> None:
    free = shutil.disk_usage(job.part.parent).free
    if total is not None and total - start > free:
        raise OSError(errno.ENOSPC, f"{total - start} bytes are needed, {free} are free")


def _copy(job: Download, reply: Any, file: IO[bytes], done: int, total: int | None, progress: Progress | None) -> None:
    while True:
        if progress:
            progress(done, total)
        try:
            block = reply.read(CHUNK)
        except (http.client.HTTPException, OSError):
            raise _cut(job, done, total) from None
        if not block:
            break
        file.write(block)
        done += len(block)
        if done > MAX_BYTES:
            raise job.fault("fetch-too-large", f"the server sends more than {MAX_BYTES} bytes")
    if total is not None and done < total:
        raise _cut(job, done, total)


def _cut(job: Download, done: int, total: int | None) -> FetchError:
    message = f"the connection was cut after {done} bytes" + (f" of {total}" if total is not None else "")
    return job.fault("fetch-cut", message, hint="try again; it goes on from there")


def _disk_fault(job: Download, error: OSError) -> FetchError:
    where = str(job.target.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room, or name another folder in NETDSL_CACHE; it then goes on from there"
        return job.fault("fetch-disk-full", f"the disk is full at {where}: {error.strerror}", hint)
    hint = "name a folder that can be written in NETDSL_CACHE"
    return job.fault("fetch-cache", f"the cache {where} cannot be used: {error.strerror or error}", hint)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process or thread at a time; the file stays behind, empty, as removing it would break the lock."""
    with open(path, "ab") as file:
        _lock(file)
        yield  # closing the file gives the lock back, as does the end of the process


if sys.platform == "win32":
    import msvcrt
    import time

    def _lock(file: IO[bytes]) -> None:
        while True:
            try:
                file.seek(0)
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except PermissionError:
                time.sleep(0.2)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
