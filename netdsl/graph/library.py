"""Where texts come from: files, the networks that ship, texts handed over, and the files these use."""

from __future__ import annotations

import functools
import stat
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath

from netdsl.errors import Diagnostic, InputError, Source, SourceError, Span, nearest
from netdsl.frozen import frozen
from netdsl.graph.faults import Fault, Faults, did_you_mean
from netdsl.graph.values import check_name
from netdsl.text import tree
from netdsl.text.known import syntax_tree
from netdsl.text.tree import MAX_BYTES

MAX_PATH = 1000  # chosen: characters of a path in a text
MAX_FILES = 64  # chosen: of one network
MAX_TOTAL = MAX_BYTES  # chosen: characters of one network's files together, before the last one


@functools.cache
def folder() -> Path:
    """The folder of the networks that ship."""
    return Path(import_module("netdsl.networks").__path__[0])  # importlib.resources would load a dozen modules


def names() -> list[str]:
    """Names of the networks that ship, such as "resnet18" and "filters/sobel", sorted."""
    paths = [p.relative_to(folder()) for p in sorted(folder().rglob("*.net"))]
    return [p.with_suffix("").as_posix() for p in paths if p.parts[0] != "blocks"]


@frozen
class Origin:
    """A text and the folder that its relative paths start from (None: it came without a file)."""

    source: Source
    folder: Path | None
    path: Path | None


def origin(source: str | Path) -> Origin:
    """The text that `source` means: a path, the bare name of a network that ships, or (with a line break) a text.

    Errors: InputError when there is no such file or network, SourceError when the file is not text.
    """
    if isinstance(source, str) and "\n" in source:
        return Origin(Source("<text>", clean(source)), None, None)
    if not isinstance(source, str | Path) or source == "":
        found = repr(source) if source == "" else f"a {type(source).__name__}"
        message = f"a path, the name of a shipped network or a text is expected, found {found}"
        raise InputError(message, code="no-source")
    path = Path(source)
    if not _is_file(path):
        path = _shipped(str(source)) or path
    try:
        return Origin(read(path), path.parent, path.resolve())
    except (OSError, ValueError) as error:
        raise _missing(str(source), error) from None


def clean(text: str) -> str:
    """Without a byte order mark, and with \\n as the only line break."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read(path: Path, name: str | None = None) -> Source:
    """The text of a file, shown under `name` (or its path).

    Errors: OSError; SourceError when it is too long or not UTF-8.
    """
    name = name or str(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
        raise OSError("it is a folder" if path.is_dir() else "it is no regular file")
    with path.open("rb") as file:
        data = file.read(4 * MAX_BYTES + 1)  # four bytes are the most that a character takes
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) > 4 * MAX_BYTES:
            raise _too_long(name) from None
        source = Source(name, clean(data.decode("utf-8", "replace")))
        start = len(clean(data[: error.start].decode("utf-8")))
        message = f"the file is not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise SourceError([Diagnostic("encoding", message, Span(source, start, start + 1))]) from None
    if len(text) > MAX_BYTES:
        raise _too_long(name)
    return Source(name, clean(text))


def _too_long(name: str) -> SourceError:
    message = f"the file is longer than {MAX_BYTES:,} characters, the limit"
    return SourceError([Diagnostic("too-long", message, Span(Source(name, ""), 0, 0))])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _shipped(name: str) -> Path | None:
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or pure.suffix:
        return None
    path = folder() / f"{name}.net"
    return path if _is_file(path) else None


def _missing(name: str, error: Exception) -> InputError:
    shown = name if len(name) <= 100 else name[:100] + "…"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and _exists(Path(name)):
        return InputError(f"it cannot be read: {error.strerror or error}", code="unreadable", path=shown)
    near = nearest(PurePosixPath(name).stem, [*names()])
    hint = f"did you mean `{near}`, a network that ships?" if near else "`netdsl networks` lists the networks that ship"
    return InputError(f"there is no file or shipped network {shown}", code="no-such-network", hint=hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


# ---- paths inside a text


def locate(base: Path | None, text: str, span: Span, code: str) -> Path | None:
    """The file that a relative path of a text means: beside it, else in the shipped library; None if there is none.

    Raises Fault for a path that is not plainly inside: absolute, with "..", a URL, or leaving by a symbolic link.
    """
    pure = PurePosixPath(text)
    if "://" in text:
        raise Fault(code, f"a file beside this one is expected, found the URL {text}", span)
    if not pure.parts or len(text) > MAX_PATH or any(c in text for c in "\\:\0") or text.startswith("~"):
        raise Fault(code, f'"{printable(text)}" is no relative path', span, "separate folders with /")
    if pure.is_absolute():
        raise Fault(code, f'the path "{text}" is absolute', span, "paths are relative to the file they are written in")
    if ".." in pure.parts:
        hint = "files are looked for in the folder of this one, below it, and in the shipped library"
        raise Fault(code, f'the path "{text}" leaves the folder', span, hint)
    for root in (base, folder()):
        if root is None:
            continue
        path, root = (root / pure).resolve(), root.resolve()
        if not path.is_relative_to(root):
            raise Fault(code, f'the path "{text}" leaves the folder by a symbolic link', span)
        if _is_file(path):
            return path
    return None


def printable(text: str) -> str:
    """The text with everything unprintable replaced, and cut to what a message can hold."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:80])
    return shown + ("…" if len(text) > 80 else "")


# ---- texts with what they use


def _shown(module: Module, text: str, path: Path) -> str:
    """The name of a used file in messages: beside the name of the file that uses it, if it lies there."""
    inside = module.folder is not None and path.is_relative_to(module.folder.resolve())
    return str(Path(module.source.name).parent / text) if inside else str(path)


@frozen
class BlockIn:
    """A block and the module it was written in."""

    block: tree.Block
    module: Module


@dataclass
class Module:
    """A parsed text, and the blocks that can be called in it (None: it could not be read)."""

    file: tree.File
    source: Source
    folder: Path | None
    blocks: dict[str, BlockIn | None] = field(default_factory=dict)


class Loader:
    """Parses texts with everything they use, each file once."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.modules: dict[Path, Module] = {}
        self.loading: list[Path] = []
        self.total = 0

    def load(self, at: Origin) -> Module:
        """The module of a text; faults in it and in what it uses are noted."""
        file, syntax = syntax_tree(at.source)
        self.faults.add_all(syntax)
        module = Module(file, at.source, at.folder)
        self.total += len(at.source.text)
        if at.path is not None:
            self.modules[at.path] = module
            self.loading.append(at.path)
        for block in file.blocks:
            self._define(module, block.name, BlockIn(block, module), block.span)
        for parameters in [b.parameters for b in file.blocks] + [n.parameters for n in file.nets]:
            self._check_parameters(parameters)
        for use in file.uses:
            self._use(module, use)
        if at.path is not None:
            self.loading.pop()
        return module

    def _check_parameters(self, parameters: tuple[tree.Parameter, ...]) -> None:
        seen: set[str] = set()
        for parameter in parameters:
            try:
                check_name(parameter.name, parameter.span)
                if parameter.name in seen:
                    raise Fault("duplicate-parameter", f"`{parameter.name}` is a parameter already", parameter.span)
            except Fault as fault:
                self.faults.note(fault)
            seen.add(parameter.name)

    def _define(self, module: Module, name: str, block: BlockIn | None, span: Span) -> None:
        if name in tree.STATEMENT_WORDS:
            self.faults.note(Fault("reserved", f"`{name}` is a word of the language: no block can have its name", span))
        elif name in module.blocks:
            self.faults.note(Fault("duplicate-block", f"there is another block named `{name}`", span))
        else:
            module.blocks[name] = block

    def _use(self, module: Module, use: tree.Use) -> None:
        try:
            used = self._used(module, use)
        except Fault as fault:
            self.faults.note(fault)
            used = None
        for name in use.names:
            if used is None or name.text in used.blocks:
                self._define(module, name.text, used.blocks[name.text] if used else None, name.span)
                continue
            self._define(module, name.text, None, name.span)
            if not used.file.broken:
                hint = did_you_mean(name.text, functools.partial(list, used.blocks))
                message = f'"{use.path.value}" has no block `{name.text}`'
                self.faults.note(Fault("unknown-block", message, name.span, hint))

    def _used(self, module: Module, use: tree.Use) -> Module:
        text, span = str(use.path.value), use.path.span
        if not text.endswith(".net"):
            raise Fault("use-path", f'a .net file is expected, found "{printable(text)}"', span)
        path = locate(module.folder, text, span, "use-path")
        if path is None:
            raise Fault("use-missing", f'there is no file "{text}" beside this one or in the shipped library', span)
        if path in self.loading:
            cycle = " uses ".join(p.name for p in [*self.loading[self.loading.index(path) :], path])
            raise Fault("use-cycle", f"files use each other in a circle: {cycle}", span)
        if path in self.modules:
            return self.modules[path]
        if len(self.modules) >= MAX_FILES or self.total > MAX_TOTAL:
            message = f"too much is used: the limits are {MAX_FILES} files and {MAX_TOTAL:,} characters"
            raise Fault("too-long", message, span)
        try:
            return self.load(Origin(read(path, _shown(module, text, path)), path.parent, path))
        except SourceError as error:
            self.faults.add_all(error.diagnostics)
            raise Fault("use-missing", f'"{text}" is not a text', span) from None
        except OSError as error:
            raise Fault("use-missing", f'cannot read "{text}": {error.strerror or error}', span) from None
