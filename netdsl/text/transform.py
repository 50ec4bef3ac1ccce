"""From Lark's parse tree to the nodes of `tree`, one method for each rule of the grammar."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from lark import Token, Transformer_NonRecursive

from netdsl.errors import Diagnostic, Source, Span
from netdsl.text import tree
from netdsl.text.tree import MAX_INTEGER, Expression

DIGITS = 19  # of MAX_INTEGER
Parts = list[Any]


class ToTree(Transformer_NonRecursive[Token, Any]):
    """Builds the nodes; faults found on the way (numbers that are too large) are added to `faults`.

    expression(text, offset) parses the expression that starts at `offset` of the source, for templates.
    """

    def __init__(self, source: Source, faults: list[Diagnostic], expression: Callable[[str, int], Expression]) -> None:
        super().__init__(visit_tokens=False)
        self.source, self.faults, self.expression_at = source, faults, expression
        self.offset = 0

    def _span(self, first: Token, last: Token | None = None) -> Span:
        last = last or first
        return Span(self.source, self.offset + (first.start_pos or 0), self.offset + (last.end_pos or 0))

    # ---- files

    def start(self, parts: Parts) -> tree.File:
        items = [p for p in parts if not isinstance(p, Token)]
        end = self.source.text.find("\n")
        return tree.File(tuple(items), Span(self.source, 0, end if end >= 0 else len(self.source.text)))

    headless = start

    def use(self, parts: Parts) -> tree.Use:
        names = tuple(tree.Name(str(p), self._span(p)) for p in parts[3:-1])
        return tree.Use(self.string([parts[1]]), names, self._span(parts[0], parts[-1]))

    def block(self, parts: Parts) -> tree.Block:
        _, name, parameters, body = parts
        return tree.Block(str(name), parameters or (), body, self._span(name))

    def net(self, parts: Parts) -> tree.Net:
        _, name, parameters, body = parts
        return tree.Net(str(name), parameters or (), body, self._span(name))

    def parameters(self, parts: Parts) -> tuple[tree.Parameter, ...]:
        return tuple(parts[1:-1])

    def parameter(self, parts: Parts) -> tree.Parameter:
        return tree.Parameter(str(parts[0]), parts[1], self._span(parts[0]))

    def broken(self, parts: Parts) -> tree.Broken:
        return tree.Broken(parts[1] if len(parts) > 1 else None, self._span(parts[0]))

    # ---- statements

    def body(self, parts: Parts) -> tree.Body:
        return tree.Body(tuple(parts[1:-1]), self._span(parts[0], parts[-1]))

    def line(self, parts: Parts) -> tuple[tree.Statement, ...]:
        return tuple(parts)

    def labelled(self, parts: Parts) -> tree.Labelled:
        label, statement = parts
        return tree.Labelled(label, statement, label.span.to(statement.span))

    def label(self, parts: Parts) -> tree.Label:
        (word,) = parts
        span = self._span(word)
        if word.type != "TEMPLATE":
            return tree.Label((str(word),), span)
        pieces: list[str | Expression] = []
        for match in re.finditer(r"\{([^}]*)\}|([^{}]+)", word):
            if match[1] is None:
                pieces.append(match[2])
            else:
                pieces.append(self.expression_at(match[1], span.start + match.start(1)))
        return tree.Label(tuple(pieces), span)

    reference = label

    def call(self, parts: Parts) -> tree.Call:
        head = self._span(parts[0])
        arguments = self._arguments(parts[1:])
        return tree.Call(str(parts[0]), arguments, head, head.to(arguments[-1].span) if arguments else head)

    def _arguments(self, parts: Parts) -> tuple[tree.Argument, ...]:
        return tuple(p if isinstance(p, tree.Argument) else tree.Argument(None, p, p.span) for p in parts)

    def option(self, parts: Parts) -> tree.Argument:
        key, value = parts
        return tree.Argument(str(key), value, self._span(key).to(value.span))

    def scope(self, parts: Parts) -> tree.Scope:
        return tree.Scope(parts[0], parts[0].span)

    def residual(self, parts: Parts) -> tree.Residual:
        word, body, path = parts
        return tree.Residual(body, path, self._span(word))

    def skip_path(self, parts: Parts) -> tree.SkipPath:
        word, label, _, condition, body = parts
        return tree.SkipPath(label, condition, body, self._span(word).to((condition or label or body).span))

    def skip(self, parts: Parts) -> tree.Skip:
        return tree.Skip(self._span(parts[0]))

    def branches(self, parts: Parts) -> tree.Branches:
        word, kind, body = parts
        return tree.Branches(str(kind), body, self._span(word, kind))

    def join(self, parts: Parts) -> tree.Join:
        return tree.Join(str(parts[0]), tuple(parts[1:]), self._span(parts[0]).to(parts[-1].span))

    def from_label(self, parts: Parts) -> tree.From:
        return tree.From(parts[1], self._span(parts[0]).to(parts[1].span))

    def repeat(self, parts: Parts) -> tree.Repeat:
        word, count, body = parts
        return tree.Repeat(None, None, count, body, self._span(word).to(count.span))

    def repeat_range(self, parts: Parts) -> tree.Repeat:
        word, index, first, last, body = parts
        return tree.Repeat(str(index), first, last, body, self._span(word).to(last.span))

    def when(self, parts: Parts) -> tree.When:
        nodes = [p for p in parts if not isinstance(p, Token)]
        arms: list[tuple[Expression | None, tree.Body]] = list(zip(nodes[::2], nodes[1::2], strict=False))
        if len(nodes) % 2:
            arms.append((None, nodes[-1]))
        return tree.When(tuple(arms), self._span(parts[0]).to(nodes[0].span))

    def let(self, parts: Parts) -> tree.Let:
        word, name, value = parts
        return tree.Let(str(name), value, self._span(word).to(value.span))

    def input(self, parts: Parts) -> tree.InputLine:
        word, name = parts[:2]
        arguments = self._arguments(parts[2:])
        span = self._span(word, name)
        return tree.InputLine(
            str(name), arguments, self._span(name), span.to(arguments[-1].span) if arguments else span
        )

    def output(self, parts: Parts) -> tree.OutputLine:
        return tree.OutputLine(str(parts[1]), self._span(parts[0], parts[1]))

    def expect(self, parts: Parts) -> tree.Expect:
        return tree.Expect(self._arguments(parts[1:]), self._span(parts[0]).to(parts[-1].span))

    def weights(self, parts: Parts) -> tree.WeightsLine:
        return tree.WeightsLine(self._arguments(parts[1:]), self._span(parts[0]).to(parts[-1].span))

    # ---- expressions

    def _whole(self, digits: str, span: Span) -> int:
        digits = digits.replace("_", "").lstrip("0") or "0"
        if len(digits) > DIGITS or int(digits) > MAX_INTEGER:
            shown = digits if len(digits) < 40 else f"a number of {len(digits)} digits"
            self.faults.append(Diagnostic("overflow", f"{shown} is too large: whole numbers end at 2^63 - 1", span))
            return 1
        return int(digits)

    def integer(self, parts: Parts) -> tree.Literal:
        span = self._span(parts[0])
        return tree.Literal(self._whole(str(parts[0]), span), span)

    def real(self, parts: Parts) -> tree.Literal:
        span, value = self._span(parts[0]), float(parts[0])
        if value == float("inf"):
            self.faults.append(Diagnostic("overflow", f"{parts[0]!s:.40} is too large for a number", span))
            value = 1.0
        return tree.Literal(value, span)

    def size(self, parts: Parts) -> tree.Size:
        span = self._span(parts[0])
        return tree.Size(tuple(None if p == "?" else self._whole(p, span) for p in parts[0].split("x")), span)

    def string(self, parts: Parts) -> tree.Literal:
        return tree.Literal(str(parts[0])[1:-1], self._span(parts[0]))

    def name(self, parts: Parts) -> tree.Name:
        return tree.Name(str(parts[0]), self._span(parts[0]))

    def group(self, parts: Parts) -> Expression:
        inside: Expression = dataclasses.replace(parts[1], span=self._span(parts[0], parts[-1]))
        return inside

    def items(self, parts: Parts) -> tree.Items:
        return tree.Items((*parts[1:-1],), self._span(parts[0], parts[-1]))

    def function(self, parts: Parts) -> tree.Function:
        return tree.Function(str(parts[0]), (*parts[2:-1],), self._span(parts[0], parts[-1]))

    def negative(self, parts: Parts) -> Expression:
        minus, operand = parts
        return tree.Unary("-", operand, self._span(minus).to(operand.span))

    def negation(self, parts: Parts) -> tree.Unary:
        word, operand = parts
        return tree.Unary("not", operand, self._span(word).to(operand.span))

    def sum(self, parts: Parts) -> tree.Chain:
        rest = (*((str(o), x) for o, x in zip(parts[1::2], parts[2::2], strict=True)),)
        return tree.Chain(parts[0], rest, parts[0].span.to(parts[-1].span))

    product = comparison = sum

    def conjunction(self, parts: Parts) -> tree.Chain:
        return tree.Chain(parts[0], (*(("and", p) for p in parts[1:]),), parts[0].span.to(parts[-1].span))

    def expression(self, parts: Parts) -> tree.Chain:
        return tree.Chain(parts[0], (*(("or", p) for p in parts[1:]),), parts[0].span.to(parts[-1].span))
