"""What a syntax error means to the person who made it."""

from __future__ import annotations

from lark import UnexpectedInput

from netdsl.errors import Diagnostic, Source, Span


def syntax_error(source: Source, error: UnexpectedInput, start: int, end: int) -> Diagnostic:
    """The Diagnostic for Lark's error at start..end of the source."""
    start, end = min(start, len(source.text)), min(end, len(source.text))
    found = source.text[start:end]
    return Diagnostic("syntax", f"unexpected `{found}`", Span(source, start, end))
