"""Scopes: what names mean at one place of a network, and how layers get their dotted names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from netdsl.errors import Call, Span
from netdsl.frozen import frozen
from netdsl.graph.faults import Fault, did_you_mean
from netdsl.graph.library import Module
from netdsl.graph.values import Names, Unknown, evaluate, show
from netdsl.tensor import TensorType
from netdsl.text import tree


@frozen
class Tensor:
    """The result of a node; its type is None when a fault has made it unknown."""

    node: int
    type: TensorType | None


POISON = Tensor(-1, None)


@dataclass
class Scope:
    """The inside of the net, of one block call, or of one labelled or bare `{ … }`.

    The bodies of residual, branches, repeat and when are no scopes of their own unless they carry a label.
    """

    module: Module  # whose blocks can be called
    path: str = ""
    outer: Scope | None = None  # where labels are looked for next
    sees_outer: bool = False  # whether the outer scope's variables are seen too (not so in a block)
    in_block: bool = False
    chain: tuple[Call, ...] = ()
    variables: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)  # results of labelled or numbered children
    scopes: dict[str, Scope] = field(default_factory=dict)
    labels: dict[str, Span] = field(default_factory=dict)  # where each label was written first
    joins: dict[str, int] = field(default_factory=dict)  # how many of each kind had no label
    count: int = 0  # children so far
    incomplete: bool = False  # a child with an unknown label may be missing

    def find(self, name: str) -> Any:
        """The value of a variable, or None."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.variables:
                return scope.variables[name]
            scope = scope.outer if scope.sees_outer else None
        return None

    def known(self) -> list[str]:
        """Names of all variables in sight."""
        return [*self.variables, *(self.outer.known() if self.sees_outer and self.outer else ())]

    def names(self, x: Tensor) -> Names:
        """What names in expressions mean here, with x as the current tensor."""
        return Names(self.find, self.known, x.type)

    # ---- children

    def child(self, label: str | None) -> str:
        """The name of the next child: its label, else its position."""
        self.count += 1
        return label if label is not None else str(self.count - 1)

    def full(self, name: str) -> str:
        """The dotted path of a child."""
        return f"{self.path}.{name}" if self.path else name

    def open(self, name: str) -> Scope:
        """The scope of a child `name: { … }`, which sees this one's variables."""
        return self._opened(name, Scope(self.module, sees_outer=True, in_block=self.in_block, chain=self.chain))

    def open_block(self, name: str, module: Module, call: Call) -> Scope:
        """The scope of a block call, which sees only what it is given."""
        return self._opened(name, Scope(module, in_block=True, chain=(*self.chain, call)))

    def _opened(self, name: str, inner: Scope) -> Scope:
        inner.path, inner.outer = self.full(name), self
        self.scopes[name] = inner
        return inner

    def trial(self) -> Scope:
        """A scope in this one's place, to run statements in that may or may not run: what they define stays in it."""
        inner = Scope(self.module, self.path, self, True, self.in_block, self.chain)
        inner.count = self.count
        return inner

    def text(self, label: tree.Label, x: Tensor) -> str:
        """A label with its template parts evaluated."""
        parts = []
        for part in label.parts:
            if isinstance(part, str):
                parts.append(part)
                continue
            value = evaluate(part, self.names(x))
            if type(value) is not int or value < 0:
                raise Fault("type", f"a label can hold whole numbers from 0, found {show(value)}", part.span)
            parts.append(str(value))
        return "".join(parts)

    # ---- references

    def resolve(self, label: tree.Label, x: Tensor) -> Tensor:
        """The tensor that a reference means, looked for from here outward. Raises Fault when there is none."""
        text = self.text(label, x)
        value = self.find(text)
        if isinstance(value, Unknown):
            return POISON
        if isinstance(value, str):  # a parameter that holds a label
            text = value
        for scope in self._outward():
            found = scope._reach(text.split("."))
            if found is not None:
                return found
        if any(scope.incomplete for scope in self._outward()):
            return POISON
        hint = did_you_mean(text, self._reachable, "a label must be written before it is referred to")
        raise Fault("unknown-label", f"nothing is labelled `{text}` so far", label.span, hint)

    def _outward(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def _reach(self, parts: list[str]) -> Tensor | None:
        scope: Scope | None = self
        for part in parts[:-1]:
            scope = scope.scopes.get(part) if scope else None
        return scope.tensors.get(parts[-1]) if scope else None

    def _reachable(self) -> list[str]:
        """Labels that a reference may mean, innermost scope first; of inner scopes, one level."""
        plain = [t for scope in self._outward() for t in scope.tensors if not t.isdigit()]
        dotted = [
            f"{name}.{t}" for scope in self._outward() for name, inner in scope.scopes.items() for t in inner.tensors
        ]
        return plain[:200] + [t for t in dotted if not t.rpartition(".")[2].isdigit()][:100]
