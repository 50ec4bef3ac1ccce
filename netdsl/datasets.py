"""Labelled data to measure a network on: MNIST files, CIFAR files, .npz archives, folders of pictures.

`open_dataset` tells them apart by content and hands out a `Dataset`: a length, and batches of ready inputs with the
right class of each. Pixels go through the network's preprocessing (images.prepare); float arrays are inputs already.
Nothing is ever unpickled.
"""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netdsl.errors import InputError, nearest
from netdsl.graph.ir import InputSpec
from netdsl.images import SUFFIXES, Floats, from_array, load_image, prepare

Labels = NDArray[np.int64]

MAX_BYTES = 2 * 2**30  # chosen: of one array once unpacked; larger sets are folders of pictures
MAX_LISTING = 64 * 2**20  # bytes; chosen: of a text that lists files and labels
LISTINGS = ("labels.txt", "labels.csv", "labels.tsv")
IMAGE_KEYS = ("x", "images", "images_rgb", "data", "inputs")
LABEL_KEYS = ("labels", "y", "label", "targets")


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    name     what it is, in words
    labels   the right class of every image, int64 [N]
    read     read(i) -> the input made of image i: float32 [1, C, H, W] (or [1, F])
    even     whether all inputs have the same size, so that they can be batched
    """

    name: str
    labels: Labels
    read: Callable[[int], Floats]
    even: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, limit: int | None = None) -> Iterator[tuple[Floats, Labels]]:
        """Inputs [n, C, H, W] and classes [n], n <= size (1 where sizes differ), of the first `limit` images."""
        count = len(self) if limit is None else min(limit, len(self))
        step = max(1, size) if self.even else 1
        for start in range(0, count, step):
            stop = min(start + step, count)
            yield np.concatenate([self.read(i) for i in range(start, stop)]), self.labels[start:stop]


def open_dataset(
    path: str | Path, spec: InputSpec, classes: int | None = None, names: Sequence[str] | None = None
) -> Dataset:
    """Open labelled data for a network's input.

    path      an .npz file; an MNIST idx images file (.gz or not) or its folder; a CIFAR-10/100 binary file or its
              folder; or a folder of pictures: class subfolders, or file names ending in _LABEL, or a labels.txt that
              gives a file name and a label on each line
    classes   how many classes the network knows; labels beyond are an error
    names     their names, for labels written as names

    Errors: InputError ("no-data", "bad-data", "bad-labels", "unsafe-data", "data-too-large").
    """
    path = Path(path)
    known = _Classes(classes, tuple(names or ()))
    try:
        found = _open(path, spec, known)
    except (OSError, EOFError, zlib.error) as e:
        raise _bad(path, f"the data cannot be read: {e}") from None
    if not len(found):
        raise _bad(path, "there are no images in it")
    known.check(found.labels, path)
    return found


def _open(path: Path, spec: InputSpec, known: _Classes) -> Dataset:
    if not path.exists():
        raise InputError("there is no such file or folder", code="no-data", path=str(path))
    if path.is_dir():
        return _open_folder(path, spec, known)
    head = _head(path)
    if head[:4] == b"PK\x03\x04":
        return _npz(path, spec)
    if head[:2] == b"\x1f\x8b" or head[:3] == b"\0\0\x08":
        return _mnist(path, spec)
    if head[:1] == b"\x80":
        raise _pickled(path)
    if path.suffix == ".bin":
        return _cifar([path], spec, known)
    raise _bad(
        path, "this is no data set that netdsl knows", "use .npz, MNIST idx files, CIFAR .bin files, or a folder"
    )


def _open_folder(folder: Path, spec: InputSpec, known: _Classes) -> Dataset:
    """What a folder holds: MNIST, CIFAR, or pictures."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    mnist = [p for p in files if "images-idx3" in p.name or "images.idx3" in p.name]
    if mnist:
        return _mnist(_preferred(mnist, ("t10k", "test")), spec)
    cifar = [p for p in files if p.suffix == ".bin"]
    if cifar:
        tests = [p for p in cifar if p.name.startswith("test")]
        return _cifar(tests or cifar, spec, known)
    pictures = _pictures(folder, files, known)
    if not pictures:
        pickled = [p for p in files if p.name.startswith(("test", "data_batch")) and _head(p)[:1] == b"\x80"]
        if pickled:
            raise _pickled(pickled[0])
    labels = np.array([label for _, label in pictures], np.int64)
    return Dataset("pictures", labels, lambda i: load_image(pictures[i][0], spec), even=not any(spec.free))


def _preferred(files: list[Path], starts: tuple[str, ...]) -> Path:
    return next((p for p in files if p.name.startswith(starts)), files[0])


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _bad(path: Path, message: str, hint: str | None = None, code: str = "bad-data") -> InputError:
    return InputError(message, code=code, path=str(path), hint=hint)


def _pickled(path: Path) -> InputError:
    return _bad(path, "this is a pickle, which could run anything when read; netdsl never opens one",
                "take CIFAR's binary version (test_batch.bin)", "unsafe-data")  # fmt: skip


# ---- labels


@dataclass(frozen=True)
class _Classes:
    """What the network knows of its classes."""

    count: int | None
    names: tuple[str, ...]

    def index(self, word: str, path: Path) -> int:
        """The class that a word means: its number or its name."""
        word = word.strip()
        if word.isascii() and word.isdigit() and len(word) < 10:
            return int(word)
        lowered = [n.lower() for n in self.names]
        if word.lower() in lowered:
            return lowered.index(word.lower())
        close = nearest(word, self.names)
        hint = f"did you mean {close}?" if close else "a label is a number from 0, or a class name"
        raise _bad(path, f"{word!r} is no class of this network", hint, "bad-labels")

    def check(self, labels: Labels, path: Path) -> None:
        """Refuse labels that the network has no class for."""
        worst = int(labels.max())
        if labels.min() < 0 or (self.count is not None and worst >= self.count):
            limit = f"0 to {self.count - 1}" if self.count is not None else "0 and up"
            found = int(labels.min()) if labels.min() < 0 else worst
            raise _bad(path, f"classes are {limit}; the data has a label {found}", code="bad-labels")


# ---- pictures in folders


def _pictures(folder: Path, files: list[Path], known: _Classes) -> list[tuple[Path, int]]:
    """Picture files and classes, by a listing, by subfolder or by file name, in order of path."""
    listing = next((p for p in files if p.name in LISTINGS), None)
    if listing is not None:
        return _listed(listing, known)
    pictures = [p for p in files if p.suffix.lower() in SUFFIXES]
    if pictures:
        return [(p, _by_name(p, known)) for p in pictures]
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found: list[tuple[Path, int]] = []
    for sub, label in zip(folders, _by_folder(folder, folders, known), strict=True):
        inside = sorted(p for p in sub.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        found += [(p, label) for p in inside]
    return found


def _listed(listing: Path, known: _Classes) -> list[tuple[Path, int]]:
    """Lines "file label" (blank, comma or tab between them); # starts a comment."""
    if listing.stat().st_size > MAX_LISTING:
        raise _bad(listing, "the list is too long", code="data-too-large")
    found = []
    for number, line in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.replace(",", " ").replace("\t", " ").split(maxsplit=1)
        name = Path(parts[0])
        if len(parts) != 2 or name.is_absolute() or ".." in name.parts:
            raise _bad(listing, f"line {number}: expected a file name in this folder and a label, found {line[:80]!r}")
        found.append((listing.parent / name, known.index(parts[1], listing)))
    return found


def _by_name(path: Path, known: _Classes) -> int:
    """The class at the end of a file name: cat_03_281.jpg -> 281."""
    stem, mark, word = path.stem.rpartition("_")
    if not (stem and mark and word):
        hint = "name pictures NAME_LABEL, sort them into one folder a class, or add a labels.txt"
        raise _bad(path, "the file name tells no class", hint, "bad-labels")
    return known.index(word, path)


def _by_folder(folder: Path, folders: list[Path], known: _Classes) -> list[int]:
    """Classes of subfolders: their numbers, their names, or their order when there is one for every class."""
    try:
        return [known.index(p.name, p) for p in folders]
    except InputError:
        if known.count is not None and len(folders) != known.count:
            hint = "name the folders by class number or class name, or have one for every class, in order"
            message = f"{len(folders)} subfolders cannot be told to be which of {known.count} classes"
            raise _bad(folder, message, hint, "bad-labels") from None
        return list(range(len(folders)))


# ---- arrays


def _npz(path: Path, spec: InputSpec) -> Dataset:
    """Images under one of IMAGE_KEYS, classes under one of LABEL_KEYS."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays[_key(path, sizes, IMAGE_KEYS, "images")]
            labels = arrays[_key(path, sizes, LABEL_KEYS, "labels")]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, KeyError, MemoryError) as e:
        raise _bad(path, f"the archive cannot be read: {e}") from None
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or images.ndim == 0 or len(images) != len(labels):
        shown = f"{images.dtype} {images.shape} and labels {labels.dtype} {labels.shape}"
        raise _bad(path, f"expected images [N, ...] and whole-number labels [N], found images {shown}")
    return _of_arrays("arrays", path, images, labels.astype(np.int64), spec)


def _key(path: Path, sizes: dict[str, int], wanted: tuple[str, ...], what: str) -> str:
    name = next((k for k in wanted if k in sizes), None)
    if name is None:
        raise _bad(
            path, f"no {what}: expected an array named {' or '.join(wanted)}, found {', '.join(sizes) or 'none'}"
        )
    if sizes[name] > MAX_BYTES:
        raise _bad(path, f"{name} unpacks to {sizes[name]} bytes, more than {MAX_BYTES}", code="data-too-large")
    return name


def _of_arrays(name: str, path: Path, images: NDArray[Any], labels: Labels, spec: InputSpec) -> Dataset:
    """uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] are pictures; floats are inputs as they are."""
    shape = spec.type.shape
    if images.dtype == np.uint8 and images.ndim in (3, 4):
        if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
            images = images.transpose(0, 2, 3, 1)
        return Dataset(name, labels, lambda i: prepare(from_array(images[i]), spec))
    fits = len(shape) == images.ndim - 1 and all(
        a == b or (len(shape) == 3 and axis > 0 and spec.free[axis - 1])
        for axis, (a, b) in enumerate(zip(images.shape[1:], shape, strict=True))
    )
    if images.dtype.kind != "f" or not fits:
        found = f"{images.dtype} of shape {'x'.join(map(str, images.shape))}"
        raise _bad(path, f"expected pixels (uint8) or inputs (float) of shape Nx{spec.type}, found {found}")
    return Dataset(name, labels, lambda i: np.ascontiguousarray(images[i : i + 1], np.float32))


def _mnist(path: Path, spec: InputSpec) -> Dataset:
    """An idx images file and the labels file beside it."""
    images = _idx(path, 3)
    partner = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    options = [partner, partner.with_name(partner.name + ".gz"), partner.with_suffix("")]
    found = next((p for p in options if p != path and p.is_file()), None)
    if found is None:
        raise InputError("the labels file is missing", code="no-data", path=str(partner))
    labels = _idx(found, 1)
    if len(labels) != len(images):
        raise _bad(found, f"{len(labels)} labels for {len(images)} images")
    return _of_arrays("MNIST", path, images, labels.astype(np.int64), spec)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, compressed or not."""
    packed = _head(path)[:2] == b"\x1f\x8b"
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        head = file.read(4 + 4 * dimensions)
        if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
            raise _bad(path, f"this is no idx file of bytes in {dimensions} dimension{'s' * (dimensions > 1)}")
        shape = struct.unpack(f">{dimensions}I", head[4:])
        size = 1
        for length in shape:
            size *= length
        if size > MAX_BYTES:
            raise _bad(path, f"{size} bytes of pixels are more than {MAX_BYTES}", code="data-too-large")
        data = file.read(size + 1)
    if len(data) != size:
        raise _bad(path, f"expected {size} bytes after the header, found {'fewer' if len(data) < size else 'more'}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _cifar(files: list[Path], spec: InputSpec, known: _Classes) -> Dataset:
    """CIFAR-10 (label, 3072 pixels) or CIFAR-100 (coarse label, fine label, 3072 pixels) in the binary version."""
    if sum(p.stat().st_size for p in files) > MAX_BYTES:
        raise _bad(files[0], f"the files hold more than {MAX_BYTES} bytes", code="data-too-large")
    marks = 2 if known.count == 100 else 1
    record = marks + 3 * 32 * 32
    parts = []
    for path in files:
        data = np.fromfile(path, np.uint8)
        if len(data) == 0 or len(data) % record:
            raise _bad(
                path, f"{len(data)} bytes are no whole number of CIFAR-{100 if marks == 2 else 10} records ({record})"
            )
        parts.append(data.reshape(-1, record))
    data = np.concatenate(parts)
    images = data[:, marks:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    name = "CIFAR-100" if marks == 2 else "CIFAR-10"
    return _of_arrays(name, files[0], images, data[:, marks - 1].astype(np.int64), spec)
