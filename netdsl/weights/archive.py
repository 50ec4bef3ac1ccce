"""The members of a zip file, found without trusting it: PyTorch checkpoints and .npz files are such archives.

`zipfile` reads the directory (through a reader that refuses huge reads); the members' bytes are taken from the mapped
file here, inflated to at most the size they declare.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from netdsl.errors import WeightsError
from netdsl.weights.tensors import WeightsFile, shown

MAX_DIRECTORY = 8 << 20  # bytes; chosen: some 80,000 members, and zipfile needs about ten times as much memory
MAX_INFLATED = 4 << 30  # bytes; chosen: four times VGG-19 in float64
FREE_INFLATED = 64 << 20  # bytes; chosen: below this no ratio is suspicious
MAX_RATIO = 100  # chosen: trained weights shrink by less than 2, sparse ones by 20 or so; deflate's limit is 1032


@dataclass(frozen=True)
class Member:
    """One file of an archive: where its stored bytes lie, and the size it declares to have once inflated."""

    name: str
    start: int
    stored: int
    size: int
    deflated: bool
    crc: int


def looks_like(file: WeightsFile) -> bool:
    """Whether the file begins as a zip archive does."""
    return file.data[:4] in (b"PK\3\4", b"PK\5\6")


def members(file: WeightsFile) -> dict[str, Member]:
    """Every member by name. Raises WeightsError for a broken, lying, encrypted or overlapping archive."""
    found: dict[str, Member] = {}
    for info in _directory(file):
        if info.filename in found:
            raise file.fault("weights-format", f"the archive holds {shown(info.filename)} twice")
        found[info.filename] = _member(file, info)
    end = 0
    for member in sorted(found.values(), key=lambda m: m.start):
        if member.start < end:
            raise file.fault("weights-unsafe", f"member {shown(member.name)} of the archive overlaps another")
        end = member.start + member.stored
    return found


def check_inflated(file: WeightsFile, total: int) -> None:
    """Refuse an archive that would inflate out of all proportion."""
    if total > MAX_INFLATED:
        raise file.fault("weights-too-large", f"it would inflate to {total} bytes; at most {MAX_INFLATED} are read")
    if total > FREE_INFLATED and total > MAX_RATIO * file.size:
        raise file.fault(
            "weights-too-large", f"its {file.size} bytes would inflate to {total}, more than {MAX_RATIO} times as much",
            hint="weights do not compress like that; if it is meant so, save the file uncompressed",
        )  # fmt: skip


def content(file: WeightsFile, member: Member) -> memoryview:
    """All bytes of a member; a view into the file where it is stored uncompressed."""
    if not member.deflated:
        return memoryview(file.data)[member.start : member.start + member.size]
    out = head(file, member, member.size + 1)
    if len(out) != member.size or zlib.crc32(out) != member.crc:
        raise file.fault("weights-format", f"member {shown(member.name)} of the archive is damaged")
    return memoryview(out)


def head(file: WeightsFile, member: Member, count: int) -> bytes:
    """At most the first `count` bytes of a member."""
    stored = memoryview(file.data)[member.start : member.start + member.stored]
    if not member.deflated:
        return bytes(stored[:count])
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, count)
    except zlib.error:
        raise file.fault("weights-format", f"member {shown(member.name)} of the archive is damaged") from None


class _Bounded:
    """The file as `zipfile` wants it, which reads nothing but the directory."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self.at, len(self.data))[whence]
        if at < 0:
            raise OSError("before the start of the file")
        self.at = at
        return at

    def tell(self) -> int:
        return self.at

    def read(self, count: int | None = None) -> bytes:
        left = max(0, len(self.data) - self.at)
        count = left if count is None or count < 0 else min(count, left)
        if count > MAX_DIRECTORY:
            raise ValueError("huge directory")
        out = bytes(self.data[self.at : self.at + count])
        self.at += count
        return out


def _directory(file: WeightsFile) -> list[zipfile.ZipInfo]:
    with memoryview(file.data) as view:
        try:
            return zipfile.ZipFile(_Bounded(view)).infolist()  # never opened further: nothing to close
        except (zipfile.BadZipFile, ValueError, OSError, struct.error, IndexError, NotImplementedError):
            pass
    raise file.fault(
        "weights-truncated", "the zip archive has no readable directory at its end; the file is cut short or damaged",
        hint="download or copy it again",
    )  # fmt: skip


def _member(file: WeightsFile, info: zipfile.ZipInfo) -> Member:
    """A member with the place of its bytes, from its local header."""
    if info.flag_bits & 0x1:
        raise file.fault("weights-format", f"member {shown(info.filename)} of the archive is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise file.fault("weights-format", f"member {shown(info.filename)} is compressed in a way that is not read")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    if not deflated and info.file_size != info.compress_size:
        raise _lie(file, info)
    at = info.header_offset
    if at < 0 or at + 30 > file.size or file.data[at : at + 4] != b"PK\3\4":
        raise _lie(file, info)
    name_length, extra_length = struct.unpack("<HH", file.data[at + 26 : at + 30])
    start = at + 30 + name_length + extra_length
    if start + info.compress_size > file.size:
        raise _lie(file, info)
    return Member(info.filename, start, info.compress_size, info.file_size, deflated, info.CRC)


def _lie(file: WeightsFile, info: zipfile.ZipInfo) -> WeightsError:
    return file.fault("weights-format", f"the archive's directory does not fit its member {shown(info.filename)}")
