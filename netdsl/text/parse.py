"""From a Source to a syntax tree, with every syntax error of the text.

Lark does the work (LALR(1), contextual lexer, the grammar in grammars/netdsl.lark). A line that cannot be read becomes
a `Broken` node and parsing goes on behind it: where the line opens a brace, with what is in the braces; else with the
next line.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

from lark import Lark, Token, Tree, UnexpectedInput, UnexpectedToken

from netdsl.errors import Diagnostic, Source, SourceError, Span
from netdsl.text import explain
from netdsl.text.known import grammar
from netdsl.text.tables import parser
from netdsl.text.transform import ToTree
from netdsl.text.tree import MAX_BYTES, Expression, File, Literal

VERSION = 1
MAX_WORDS = 60_000  # chosen: words, numbers and signs; a second of parsing
MAX_NESTING = 64  # chosen: deeper texts are not for people, and this keeps recursion far from Python's limit
MAX_RECOVERIES = 500  # chosen: after so many broken lines, reading on is a waste of time

_PIECES = re.compile(r'"[^"\n]*"?|#[^\n]*|[{}()\[\]]')
_WORDS = re.compile(r"#[^\n]*()|\w+|[^\w\s]")
_STOPS = re.compile(r'"[^"\n]*"?|#[^\n]*|(?<![\w.])[\w.]++\{[^\s{}|][^{}|\n]*\}|[\n{}|]')
_HEAD = re.compile(r"(?:\s|#[^\n]*\n)*netdsl[ \t]+(\d+)[ \t]*(?:#[^\n]*)?(?:\n|$)")


def parse(source: Source) -> File:
    """The syntax tree of a text. Raises SourceError with every syntax error."""
    file, faults = parse_tolerant(source)
    if faults:
        raise SourceError(faults)
    return file


def parse_tolerant(source: Source) -> tuple[File, list[Diagnostic]]:
    """The syntax tree of what could be read of a text, and its syntax errors."""
    faults: list[Diagnostic] = []
    text = _within_limits(source, faults) and _balance(source, faults)
    if not text:
        return File((), Span(source, 0, 0)), faults
    return _Parser(source, text, faults).file(), faults


@functools.cache
def lark() -> Lark:
    """The parser of .net files, made on first use."""
    return parser(grammar())


def _within_limits(source: Source, faults: list[Diagnostic]) -> bool:
    characters = len(source.text)
    words = sum(m[1] is None for m in _WORDS.finditer(source.text)) if characters <= MAX_BYTES else 0
    for count, limit, what in ((characters, MAX_BYTES, "characters"), (words, MAX_WORDS, "words and signs")):
        if count > limit:
            message = f"the text has {count:,} {what}; the limit is {limit:,}"
            faults.append(Diagnostic("too-long", message, Span(source, 0, 0)))
    return not faults


def _balance(source: Source, faults: list[Diagnostic]) -> str | None:
    """The text with its braces made to match, offsets unchanged, and a fault for each that did not.

    None when it nests too deep to be read at all.
    """
    depth, surplus = 0, []
    opened: list[tuple[int, int]] = []  # offset and depth of the braces still open
    suspects: list[int] = []  # braces whose closing one stands further left than their own line
    for match in _PIECES.finditer(source.text):
        piece, start = match[0], match.start()
        if piece in "{([":
            depth += 1
            if depth > MAX_NESTING:
                message = f"brackets are nested more than {MAX_NESTING} deep"
                faults.append(Diagnostic("nesting", message, Span(source, start, start + 1)))
                return None
            if piece == "{":
                opened.append((start, depth))
        elif piece in ")]":
            depth = max(depth - 1, opened[-1][1] if opened else 0)
        elif piece == "}" and opened:
            brace, depth = opened.pop()
            depth -= 1
            if _stands_left_of(source.text, start, brace):
                suspects.append(brace)
        elif piece == "}":
            surplus.append(start)
    unclosed = (suspects or [start for start, _ in opened])[: len(opened)]
    wrong = surplus[:MAX_RECOVERIES]
    faults += [Diagnostic("brace", "this } closes nothing", Span(source, start, start + 1)) for start in wrong]
    faults += [Diagnostic("brace", "this { is never closed", Span(source, start, start + 1)) for start in unclosed]
    characters = list(source.text)
    for start in surplus:
        characters[start] = " "
    return "".join(characters) + "\n" + "}\n" * len(opened)


def _stands_left_of(text: str, closing: int, opening: int) -> bool:
    """Whether a closing brace begins its line, further left than the line of the opening one begins."""
    line = text.rfind("\n", 0, closing) + 1
    if text[line:closing].strip():
        return False
    first = text.rfind("\n", 0, opening) + 1
    return closing - line < len(text[first:opening]) - len(text[first:opening].lstrip())


@dataclass
class _Parser:
    """One run over one text."""

    source: Source
    text: str  # of the source, with matching braces
    faults: list[Diagnostic]
    last_stop: int = -1
    recoveries: int = 0

    def file(self) -> File:
        head = _HEAD.match(self.text)
        if head is None:
            span = Span(self.source, 0, len(self.source.line(1)))
            hint = f"write `netdsl {VERSION}` as the first line"
            self.faults.append(Diagnostic("head", "the text does not say which language it is in", span, hint))
        elif int(head[1][:9]) != VERSION:
            span = Span(self.source, head.start(1), head.end(1))
            message = f"this is netdsl {VERSION}; the text is written for version {head[1]:.20}"
            self.faults.append(Diagnostic("version", message, span))
        try:
            parsed = lark().parse(self.text, start="start" if head else "headless", on_error=self.recover)
        except UnexpectedInput:  # only after too many recoveries
            return File((), Span(self.source, 0, 0))
        file: File = ToTree(self.source, self.faults, self.template_part).transform(parsed)
        return file

    def template_part(self, text: str, offset: int) -> Expression:
        """The expression inside `enc{…}`, which starts at `offset` of the source."""
        try:
            parsed = lark().parse(text, start="expression")
        except UnexpectedInput:
            span = Span(self.source, offset, offset + len(text))
            self.faults.append(Diagnostic("syntax", f"`{text}` is no expression that a label can hold", span))
            return Literal(0, span)
        made = ToTree(self.source, self.faults, self.template_part)
        made.offset = offset
        expression: Expression = made.transform(parsed)
        return expression

    def recover(self, error: UnexpectedInput) -> bool:
        """Notes the error and makes the parser go on behind it; False to give up."""
        parser = error.interactive_parser
        start, end = self._place(error)
        if _continues_broken(parser.parser_state.value_stack):
            parser.feed_token(Token("_NL", "\n"))  # keeps the broken statement; what follows it is no new fault
        else:
            self.faults.append(explain.syntax_error(lark(), self.source, error, start, end))
        self.recoveries += 1
        if self.recoveries > MAX_RECOVERIES:
            return False
        stop = self._stop(start)
        states, values = parser.parser_state.state_stack, parser.parser_state.value_stack
        table = parser.parser_state.parse_conf.states
        count = len(values) - _body_start(values)
        del states[len(states) - count :], values[len(values) - count :]
        while "BROKEN" not in table[states[-1]]:
            states.pop()
            values.pop()
        parser.feed_token(Token("BROKEN", self.text[start:stop], start_pos=start, end_pos=max(end, start)))
        lexer: Any = parser.lexer_thread.state
        lexer.line_ctr.char_pos = stop
        return True

    def _place(self, error: UnexpectedInput) -> tuple[int, int]:
        """Start and end of what the parser did not expect."""
        if not isinstance(error, UnexpectedToken):
            return error.pos_in_stream or 0, (error.pos_in_stream or 0) + 1
        if error.token.type == "$END":
            return len(self.text), len(self.text)
        start = error.token.start_pos or 0
        return start, start + len(error.token.split("\n")[0].rstrip())

    def _stop(self, start: int) -> int:
        """Where to go on after an error at `start`: the next line break, pipe or brace."""
        begin = start + 1 if start == self.last_stop else start
        match = next((m for m in _STOPS.finditer(self.text, begin) if m[0] in "\n{}|"), None)
        self.last_stop = match.start() if match else len(self.text)
        return self.last_stop


def _continues_broken(values: list[Any]) -> bool:
    """Whether the parser stands behind something broken that the fault at hand belongs to.

    That is behind the body of a broken statement (`… } skip`, `… } else`), or, outside of all braces, on the line
    below a broken declaration without a body.
    """
    if len(values) > 1 and _is_token(values[-1], "_NL") and isinstance(values[-2], Tree):
        return bool(values[-2].data == "broken" and len(values[-2].children) == 1)
    start = _body_start(values)
    if start == len(values) and values and isinstance(values[-1], Tree) and values[-1].data == "body":
        start -= 1
    return 0 < start < len(values) and _is_token(values[start - 1], "BROKEN")


def _body_start(values: list[Any]) -> int:
    """Where the body begins whose closing brace is the last value; their number when the last value is none."""
    at = len(values) - 1
    if at < 0 or not _is_token(values[at], "RBRACE"):
        return len(values)
    while not _is_token(values[at], "LBRACE"):
        at -= 1
    return at


def _is_token(value: Any, kind: str) -> bool:
    return isinstance(value, Token) and value.type == kind
