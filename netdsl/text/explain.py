"""What a syntax error means to the person who made it.

The parser's state tells what it was in the middle of. Malformed samples, each with its message, are parsed once; an
error that leaves the parser in the same state, at the same kind of word, gets the message of the sample.
"""

from __future__ import annotations

import difflib
import functools
import re

from lark import Lark, Token, UnexpectedInput, UnexpectedToken

from netdsl.errors import Diagnostic, Source, Span
from netdsl.text.samples import SAMPLES
from netdsl.text.tree import OUTSIDE_WORDS, STATEMENT_WORDS

Key = tuple[int, str]  # state of the parser, and kind of the word (or the character) that it met there


def syntax_error(parser: Lark, source: Source, error: UnexpectedInput, start: int, end: int) -> Diagnostic:
    """The Diagnostic for Lark's error at start..end of the source."""
    start, end = min(start, len(source.text)), min(end, len(source.text))
    span = Span(source, start, max(start, end))
    if not isinstance(error, UnexpectedToken) and _key(error) not in table(parser):
        message, hint = _character(source.text[start:])
        return Diagnostic("character", message, span, hint)
    found = _found(_key(error)[1], source.text[start:end])
    message, hint = table(parser).get(_key(error), ("{found} cannot stand here", None))
    values = error.interactive_parser.parser_state.value_stack
    inside = any(isinstance(value, Token) and value.type == "LBRACE" for value in values)
    return Diagnostic("syntax", message.format(found=found), span, _near_hint(span.text_line, inside) or hint)


@functools.cache
def table(parser: Lark) -> dict[Key, tuple[str, str | None]]:
    """Message and hint by parser state and kind of the word that was met there."""
    messages: dict[Key, tuple[str, str | None]] = {}
    for sample in SAMPLES:
        for text in sample.texts:
            met = key(parser, text, sample.outside)
            if met is not None:
                messages.setdefault(met, (sample.message, sample.hint))
    return messages


def key(parser: Lark, text: str, outside: bool) -> Key | None:
    """State and kind of word at the error of a malformed sample; None when the sample has none."""
    whole = f"netdsl 1\n{text}\n" if outside else f"netdsl 1\nnet n {{\n{text}\n}}\n"
    try:
        parser.parse(whole, start="start")
    except UnexpectedInput as error:
        return _key(error)
    return None


def _key(error: UnexpectedInput) -> Key:
    kind = error.token.type if isinstance(error, UnexpectedToken) else str(getattr(error, "char", ""))
    return error.interactive_parser.parser_state.position, kind


def _found(kind: str, text: str) -> str:
    """What was met, in words."""
    if kind == "$END":
        return "the end of the text"
    if kind == "_NL":
        return "the end of the line"
    text = "".join(c if c.isprintable() else "?" for c in text.split("\n")[0].strip())
    return f"`{text if len(text) <= 40 else text[:40] + '…'}`"


def _character(rest: str) -> tuple[str, str | None]:
    """Message and hint for a text that starts with something that is no word of the language."""
    first = rest[:1]
    if first == '"':
        return "the quoted string does not end on its line", 'close it with "'
    number = re.match(r"[0-9?][0-9A-Za-z_.?]*", rest)
    if number:
        hint = "a size is written 3x3; names do not start with a digit"
        return f"`{number[0][:40]}` is neither a number nor a size", hint
    if first in "×✕":
        return f"the character `{first}` is not part of a size", "write an x, as in 3x3"
    shown = f"`{first}`" if first.isprintable() else f"U+{ord(first or ' '):04X}"
    return f"the character {shown} has no meaning here", None


def _near_hint(line: str, inside: bool) -> str | None:
    """A hint from the first word of the line, where the word explains the error; `inside`: of a body in braces."""
    match = re.match(r"[\s}]*([A-Za-z_]\w*)", line)
    word = match[1] if match else ""
    if word in OUTSIDE_WORDS and inside:
        return f"`{word}` stands outside of all braces; is a }} missing above?"
    if word == "else":
        return "`else` goes on the line of the closing brace before it"
    if "{" in line and word not in (*STATEMENT_WORDS, *OUTSIDE_WORDS):
        close = difflib.get_close_matches(word[:40], STATEMENT_WORDS, n=1, cutoff=0.75)  # chosen: not conv for concat
        return f"did you mean `{close[0]}`?" if close else None
    return None
