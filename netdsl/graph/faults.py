"""The faults of one build: collected, each once, and raised together."""

from __future__ import annotations

from collections.abc import Iterable

from netdsl.errors import Call, Diagnostic, SourceError, Span

MAX_SHOWN = 50  # chosen: more than anybody reads


class Fault(Exception):
    """A fault in one statement or expression; whoever runs statements adds it to the Faults and goes on."""

    def __init__(self, code: str, message: str, span: Span, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.span, self.hint = code, message, span, hint


class Poisoned(Exception):
    """A value is unknown because of a fault that has been noted already: nothing more to say."""


class GaveUp(Exception):
    """The text asks for more than the limits allow; the fault has been noted, and going on makes no sense."""


class Faults:
    """Every fault found so far.

    A fault in a block or a repeat shows up at every run through it: only the first (with its chain of calls) is kept.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, int, int], Diagnostic] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, diagnostic: Diagnostic) -> None:
        span = diagnostic.span
        self._found.setdefault((diagnostic.code, span.source.name, span.start, span.end), diagnostic)

    def add_all(self, diagnostics: Iterable[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def note(self, fault: Fault, chain: tuple[Call, ...] = ()) -> None:
        self.add(Diagnostic(fault.code, fault.message, fault.span, fault.hint, chain))

    def check(self, main: str) -> None:
        """Raises SourceError when there are faults: those of the file named `main` first, then by file and place."""
        found = sorted(
            self._found.values(), key=lambda d: (d.span.source.name != main, d.span.source.name, d.span.start)
        )
        if len(found) > MAX_SHOWN:
            rest = len(found) - MAX_SHOWN
            last = Diagnostic("more", f"and {rest} more error{'s' * (rest > 1)}", found[MAX_SHOWN].span)
            found = [*found[:MAX_SHOWN], last]
        if found:
            raise SourceError(found)
