"""Every error that a user can meet, and how a place in a text is shown.

NetError
├── SourceError    a .net text is wrong (carries one Diagnostic for each fault)
├── WeightsError   a weights file, or its match with the network, is wrong
├── InputError     an array, image or data set handed to a network is wrong
├── DeviceError    the requested device or its packages are missing
└── FetchError     a download failed

NetWarning         (a UserWarning) something is allowed but hardly what was wanted, such as random weights

Nothing here imports another netdsl module but `frozen`.
"""

from __future__ import annotations

from collections.abc import Sequence

from netdsl.frozen import frozen


@frozen
class Source:
    """A text and the name it is shown under (a path, or "<text>")."""

    name: str
    text: str

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of a character offset."""
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1

    def line(self, number: int) -> str:
        """The text of one line (from 1), without its line break."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if number <= len(lines) else ""


@frozen
class Span:
    """Characters start..end (end excluded) of a source."""

    source: Source
    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of the other."""
        return Span(self.source, self.start, max(self.end, other.end))

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def text_line(self) -> str:
        """The whole source line that this starts in."""
        text = self.source.text
        end = text.find("\n", self.start)
        return text[text.rfind("\n", 0, self.start) + 1 : end if end >= 0 else len(text)].rstrip("\r")

    @property
    def place(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"

    def carets(self, width: int = 100) -> str:
        """The source line with carets under the span, cut to a window around it when the line is long."""
        line, column = self.source.position(self.start)
        text = self.text_line
        length = max(1, min(self.end - self.start, len(text) - column + 1))
        first = max(0, column - 1 - width // 2) if len(text) > width else 0
        shown = "".join(c if c.isprintable() else " " for c in text[first : first + width])
        gutter = f"{line:>5} | "
        marks = "^" * max(1, min(length, width - (column - 1 - first)))
        return f"{gutter}{shown}\n{' ' * (len(gutter) - 2)}| {' ' * (column - 1 - first)}{marks}"


@frozen
class Call:
    """One step of the chain of block calls that led to a fault."""

    block: str
    span: Span


@frozen
class Diagnostic:
    """One fault: what is wrong, where, through which calls, and the way out."""

    code: str
    message: str
    span: Span
    hint: str | None = None
    chain: tuple[Call, ...] = ()  # outermost call first

    def render(self) -> str:
        """The fault as `netdsl check` prints it."""
        out = [f"{self.span.place}: error[{self.code}]: {self.message}", self.span.carets()]
        out += [f"  in block {call.block}, called at {call.span.place}" for call in reversed(self.chain)]
        if self.hint:
            out.append(f"  hint: {self.hint}")
        return "\n".join(out)


class NetError(Exception):
    """Base of all netdsl errors.

    code    short stable name of the kind of fault, such as "unknown-layer"
    path    the file at fault, line and column (from 1) within it, or None
    hint    the way out, or None
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        path: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.path, self.line, self.column, self.hint = message, code, path, line, column, hint

    def render(self) -> str:
        """The error as the command line prints it."""
        where = f"{self.path}: " if self.path else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}error[{self.code}]: {self.message}{hint}"

    def __str__(self) -> str:
        return self.render()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[NetError], args: tuple[object, ...], state: dict[str, object]) -> NetError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class SourceError(NetError):
    """A .net text is wrong; `diagnostics` holds every fault found, in order of place."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        first = diagnostics[0]
        super().__init__(
            first.message, code=first.code, path=first.span.source.name,
            line=first.span.line, column=first.span.column, hint=first.hint,
        )  # fmt: skip
        self.diagnostics = tuple(diagnostics)

    def render(self) -> str:
        return "\n\n".join(d.render() for d in self.diagnostics)


class WeightsError(NetError):
    """A weights file cannot be read, or does not fit the network."""


class InputError(NetError):
    """An array, image, data set or parameter handed to netdsl is wrong."""


class DeviceError(NetError):
    """The requested device cannot be used."""


class FetchError(NetError):
    """A download failed."""


class NetWarning(UserWarning):
    """Something is allowed but hardly what was wanted: random weights, or a cache that cannot be written."""


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word most like `word`, for "did you mean"; None when nothing is near."""
    import difflib

    if len(word) > 100:
        return None
    close = difflib.get_close_matches(word, known[:300], n=1, cutoff=0.6)  # the limits keep hostile texts quick
    return close[0] if close else None
