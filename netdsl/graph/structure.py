"""The structure of a network: residuals, branches, joins, repeats, conditions and `let`."""

from __future__ import annotations

import re

from netdsl.errors import Span
from netdsl.graph.elaborate import MAX_STEPS, STEP, Elaborator
from netdsl.graph.faults import Fault, Faults, Poisoned
from netdsl.graph.scope import POISON, Scope, Tensor
from netdsl.graph.values import UNKNOWN, check_name, condition, evaluate, whole
from netdsl.ops.base import Op
from netdsl.ops.join import Add, Concat, Mul
from netdsl.text import tree

_NO_ARM = (tree.Let, tree.OutputLine, tree.Expect, tree.InputLine, tree.WeightsLine)
JOINS: dict[str, Op] = {"concat": Concat(), "add": Add(), "mul": Mul()}


class Structure(Elaborator):
    """Runs the statements that steer: which bodies run, on what, and how their results are joined."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults)
        self.tried: set[int] = set()  # ids of bodies that were run on trial
        self.handlers |= {
            tree.Residual: self.residual, tree.Branches: self.branches, tree.Skip: self.skip, tree.Join: self.join,
            tree.From: self.from_label, tree.Repeat: self.repeat, tree.When: self.when, tree.Let: self.let,
            tree.Broken: self.broken,
        }  # fmt: skip

    def inner(self, label: str | None, scope: Scope) -> Scope:
        """The scope that a structure's body runs in: a new one when the structure is labelled, else the same."""
        return scope if label is None else scope.open(scope.child(label))

    def joined(self, kind: str, label: str | None, inputs: tuple[Tensor, ...], scope: Scope, span: Span) -> Tensor:
        """A node that joins tensors; without a label it is called "add", "add.2", and so on (no label can be)."""
        if label is None:
            number = scope.joins[kind] = scope.joins.get(kind, 0) + 1
            label = kind if number == 1 else f"{kind}.{number}"
        try:
            return self.node(label, JOINS[kind], inputs, scope, span)
        except Fault as fault:
            if fault.code == "shape":
                fault.code = "join-shapes"
            raise

    def residual(self, residual: tree.Residual, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        scope = self.inner(label, scope)
        body = self.run(residual.body, scope, x)
        side = x if residual.skip is None else self.skip_path(residual.skip, scope, x)
        if side is x and None not in (body.type, x.type) and body.type != x.type:
            message = f"the body gives {body.type}, the skip path (its input, unchanged) {x.type}"
            hint = (
                "add `skip { … }` behind the body to bring its input to the same shape" if not residual.skip else None
            )
            raise Fault("join-shapes", message, residual.span, hint)
        return self.joined("add", None, (body, side), scope, residual.span)

    def skip_path(self, path: tree.SkipPath, scope: Scope, x: Tensor) -> Tensor:
        taken = True if path.condition is None else self.condition(path.condition, scope, x)
        if taken is None:
            return self.unsure([path.body], scope)
        if not taken:
            return x
        if path.label is None:
            return self.run(path.body, scope, x)
        name = self.fresh(path.label, scope, x)
        scope.tensors[name] = self.run(path.body, scope.open(scope.child(name)), x)
        return scope.tensors[name]

    def branches(self, branches: tree.Branches, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        scope = self.inner(label, scope)
        self.enter(branches.body.span, scope)
        arms = [arm for line in branches.body.lines if (arm := self.arm(line, scope, x)) is not None]
        self.depth -= 1
        if not arms:
            raise Fault("no-arms", "branches needs at least one arm", branches.span)
        return self.joined(branches.kind, None, tuple(arms), scope, branches.span)

    def arm(self, line: tuple[tree.Statement, ...], scope: Scope, x: Tensor) -> Tensor | None:
        """One line of branches; None when it is no arm: only `let` and the like, or a `when` that does not hold."""
        if all(isinstance(s, _NO_ARM) for s in line):
            self.line(line, scope, x)
            return None
        match line:
            case (tree.Skip(),):
                return x
            case (tree.Scope() as statement,):
                self.step(statement.span, scope)
                return self.run(statement.body, scope, x)
            case (tree.When() as statement,):
                try:
                    return self.when_arm(statement, scope, x)
                except Poisoned:
                    return POISON
        return self.line(line, scope, x)

    def when_arm(self, when: tree.When, scope: Scope, x: Tensor) -> Tensor | None:
        body = self.chosen(when, scope, x)
        if body is None:
            return None
        if [type(s) for line in body.lines for s in line] == [tree.Skip]:
            return x
        return self.run(body, scope, x)

    def skip(self, skip: tree.Skip, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        hint = "behind a residual, `skip` goes on the line of its closing brace"
        raise Fault("skip", "`skip` stands alone on a line of branches", skip.span, hint)

    def join(self, join: tree.Join, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        self.step(join.span, scope, STEP * len(join.references))
        others = [self.reference(reference, scope, x) for reference in join.references]
        return self.joined(join.kind, label, (x, *others), scope, join.span)

    def reference(self, reference: tree.Label, scope: Scope, x: Tensor) -> Tensor:
        try:
            return scope.resolve(reference, x)
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        except Poisoned:
            pass
        return POISON

    def from_label(self, statement: tree.From, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        return self.reference(statement.reference, scope, x)

    def repeat(self, repeat: tree.Repeat, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        scope = self.inner(label, scope)
        if repeat.index is not None:
            check_name(repeat.index, repeat.span)
        try:
            numbers = self.numbers(repeat, scope, x)
        except (Fault, Poisoned) as error:
            if isinstance(error, Fault):
                self.faults.note(error, scope.chain)
            return self.unsure([repeat.body], scope, repeat.index)
        before = scope.variables.get(repeat.index or "")
        for number in numbers:
            self.step(repeat.span, scope)
            if repeat.index is not None:
                scope.variables[repeat.index] = number
            x = self.run(repeat.body, scope, x)
        if repeat.index is not None:
            scope.variables.pop(repeat.index, None)
            scope.variables |= {} if before is None else {repeat.index: before}
        return x

    def numbers(self, repeat: tree.Repeat, scope: Scope, x: Tensor) -> range:
        """What the index runs through. Raises Fault, Poisoned, GaveUp."""
        names = scope.names(x)
        last = whole(repeat.last, names, "an end of the range" if repeat.first else "the number of repeats")
        first = 1 if repeat.first is None else whole(repeat.first, names, "an end of the range")
        if repeat.first is None and last < 0:
            raise Fault("type", f"the number of repeats must be 0 or more, found {last}", repeat.last.span)
        if last - first >= MAX_STEPS:
            message = f"{last - first + 1:,} repeats are too many: a network runs at most {MAX_STEPS:,} statements"
            self.give_up("too-large", message, repeat.span, scope)
        return range(first, last + 1)

    def when(self, when: tree.When, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        scope = self.inner(label, scope)
        body = self.chosen(when, scope, x)
        return x if body is None else self.run(body, scope, x)

    def chosen(self, when: tree.When, scope: Scope, x: Tensor) -> tree.Body | None:
        """The body whose condition holds. Raises Poisoned when that cannot be known; then every body was checked."""
        for test, body in when.arms:
            self.step(when.span, scope, test.span.end - test.span.start if test else 0)
            holds = True if test is None else self.condition(test, scope, x)
            if holds is None:
                self.unsure([b for _, b in when.arms], scope)
                raise Poisoned
            if holds:
                return body
        return None

    def condition(self, expression: tree.Expression, scope: Scope, x: Tensor) -> bool | None:
        """Whether a condition holds; None (and a fault noted) when it cannot be known."""
        try:
            return condition(expression, scope.names(x))
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        except Poisoned:
            pass
        return None

    def unsure(self, bodies: list[tree.Body], scope: Scope, index: str | None = None) -> Tensor:
        """Checks bodies that may or may not run. What they define is unknown afterwards."""
        for body in bodies:
            if id(body) in self.tried:  # each once is enough
                continue
            self.tried.add(id(body))
            trial = scope.trial()
            trial.variables |= {index: UNKNOWN} if index else {}
            self.run(body, trial, POISON)
            scope.variables |= dict.fromkeys(trial.variables, UNKNOWN)
        scope.incomplete = True
        return POISON

    def let(self, let: tree.Let, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        scope.variables.setdefault(let.name, UNKNOWN)
        try:
            check_name(let.name, let.span)
            scope.variables[let.name] = evaluate(let.value, scope.names(x))
        except (Fault, Poisoned) as error:
            scope.variables[let.name] = UNKNOWN
            if isinstance(error, Fault):
                self.faults.note(error, scope.chain)
        return x

    def broken(self, broken: tree.Broken, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        line = broken.span.text_line
        scope.variables |= dict.fromkeys(re.findall(r"\blet\s+([A-Za-z_]\w*)", line), UNKNOWN)
        for name in re.findall(r"\bblock\s+([A-Za-z_]\w*)", line):  # in a wrong place, but what calls it is right
            scope.module.blocks.setdefault(name, None)
        return self.unsure([broken.body] if broken.body else [], scope)
