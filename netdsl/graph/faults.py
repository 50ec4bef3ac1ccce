"""The faults of one build: collected, each once, and raised together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from netdsl.errors import Call, Diagnostic, SourceError, Span, nearest

MAX_SHOWN = 50  # chosen: more than anybody reads
MAX_FOUND = 100  # chosen: after so many, looking for more is a waste of time
MAX_MESSAGE = 300  # chosen: characters, for texts with endless names


Hint = str | Callable[[], str | None] | None  # a function is called only for faults that are new


def did_you_mean(word: str, known: Callable[[], Sequence[str]], otherwise: str | None = None) -> Hint:
    """The hint that names the known word nearest to `word`; `otherwise` when none is near."""

    def hint() -> str | None:
        near = nearest(word, known())
        return f"did you mean `{near}`?" if near else otherwise

    return hint


class Fault(Exception):
    """A fault in one statement or expression; whoever runs statements adds it to the Faults and goes on."""

    def __init__(self, code: str, message: str, span: Span, hint: Hint = None) -> None:
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

    def has(self, code: str, span: Span) -> bool:
        """Whether a fault of this kind has been noted at this place."""
        return (code, span.source.name, span.start, span.end) in self._found

    def add(self, diagnostic: Diagnostic) -> None:
        span = diagnostic.span
        self._found.setdefault((diagnostic.code, span.source.name, span.start, span.end), diagnostic)

    def add_all(self, diagnostics: Iterable[Diagnostic]) -> None:
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def note(self, fault: Fault, chain: tuple[Call, ...] = ()) -> None:
        """Adds a fault, found while the calls of `chain` ran. Raises GaveUp when there are too many to go on."""
        if self.has(fault.code, fault.span):
            return
        hint = fault.hint() if callable(fault.hint) else fault.hint
        self.add(Diagnostic(fault.code, _shown(fault.message), fault.span, hint and _shown(hint), chain))
        if len(self._found) > MAX_FOUND:
            raise GaveUp

    def check(self, main: str) -> None:
        """Raises SourceError when there are faults: those of the file named `main` first, then by file and place."""
        found = sorted(
            self._found.values(), key=lambda d: (d.span.source.name != main, d.span.source.name, d.span.start)
        )
        if len(found) > MAX_SHOWN:
            rest = len(found) - MAX_SHOWN
            count = f"{rest} more" if len(found) <= MAX_FOUND else "many more"
            last = Diagnostic("more", f"and {count} error{'s' * (rest > 1)}", found[MAX_SHOWN].span)
            found = [*found[:MAX_SHOWN], last]
        if found:
            raise SourceError(found)


def _shown(message: str) -> str:
    """The message with everything unprintable replaced, and cut to a bearable length."""
    cut = message if len(message) <= MAX_MESSAGE else message[:MAX_MESSAGE] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)
