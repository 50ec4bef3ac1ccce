"""Running the statements of a network: each layer becomes nodes, its shape inferred at once.

A fault is noted and the tensor becomes POISON: it flows on without further complaints, while everything that does not
depend on it is still checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from netdsl.errors import Call, Span
from netdsl.graph.calls import LayerCall, bind, brackets, layer_call, written_with_brackets
from netdsl.graph.faults import Fault, Faults, GaveUp, Hint, Poisoned, did_you_mean
from netdsl.graph.ir import Node, Stored
from netdsl.graph.library import BlockIn
from netdsl.graph.scope import POISON, Scope, Tensor
from netdsl.graph.values import UNKNOWN, evaluate
from netdsl.ops import LAYERS
from netdsl.ops.base import Op, ShapeFault
from netdsl.tensor import MAX_ELEMENTS, TensorType
from netdsl.text import tree

MAX_STEPS = 50_000  # chosen: statements run, fifty times as many as in the largest network that ships
STEP = 40  # chosen: characters whose evaluation takes about as long as the rest of a statement
MAX_NODES = 20_000  # chosen
MAX_LABEL = 64  # chosen: characters
MAX_PATH = 255  # chosen: characters of a dotted name
MAX_DEPTH = 64  # chosen: block calls and braces inside each other


class Elaborator:
    """Grows the list of nodes while it runs through bodies.

    Every handler takes (statement, scope, x, label) and gives the tensor that is current afterwards. A label makes a
    layer's name, or opens a scope.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.nodes: list[Node] = []
        self.steps = 0
        self.depth = 0
        self.running: dict[int, str] = {}  # names of the blocks that are running, by id, innermost last
        self.called: set[int] = set()  # ids of the blocks that ran
        self.handlers: dict[type, Callable[[Any, Scope, Tensor, str | None], Tensor]] = {
            tree.Labelled: self.labelled, tree.Call: self.call, tree.Scope: self.scope,
        }  # fmt: skip

    # ---- running

    def run(self, body: tree.Body, scope: Scope, x: Tensor) -> Tensor:
        """All lines of a body, one after another."""
        self.enter(body.span, scope)
        for line in body.lines:
            x = self.line(line, scope, x)
        self.depth -= 1
        return x

    def enter(self, span: Span, scope: Scope) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.give_up("nesting", f"blocks and braces are nested more than {MAX_DEPTH} deep", span, scope)
        if len(scope.path) > MAX_PATH:
            self.give_up("too-long", f"dotted names become longer than {MAX_PATH} characters", span, scope)

    def line(self, line: tuple[tree.Statement, ...], scope: Scope, x: Tensor) -> Tensor:
        for statement in line:
            x = self.statement(statement, scope, x)
        return x

    def statement(self, statement: tree.Statement, scope: Scope, x: Tensor, label: str | None = None) -> Tensor:
        self.step(statement.span, scope, _written(statement))
        try:
            return self.handlers[type(statement)](statement, scope, x, label)
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        except Poisoned:
            pass
        return POISON

    def step(self, span: Span, scope: Scope, written: int = 0) -> None:
        """Counts a statement, and more for one with `written` characters to evaluate."""
        self.steps += 1 + written // STEP
        if self.steps > MAX_STEPS:
            self.give_up("too-large", f"the network runs more than {MAX_STEPS:,} statements", span, scope)

    def give_up(self, code: str, message: str, span: Span, scope: Scope) -> None:
        self.faults.note(Fault(code, message, span), scope.chain)
        raise GaveUp

    # ---- nodes

    def node(self, name: str, op: Op, inputs: tuple[Tensor, ...], scope: Scope, span: Span) -> Tensor:
        """A new node named `name` in the scope. Raises Fault when the shapes do not suit the operation."""
        types = tuple(x.type for x in inputs if x.type is not None)
        if len(types) < len(inputs):
            return POISON
        try:
            made, params = op.infer(*types), op.params(*types)
        except ShapeFault as fault:
            raise Fault("shape", fault.message, span, fault.hint) from None
        self._check_size(made, "the result", span)
        for role, param in params.items():
            self._check_size(TensorType(param.shape), f"the {role}", span)
        path = scope.full(name)
        weights = {role: Stored(f"{path}.{role}", p.shape, p.learnable) for role, p in params.items()}
        if len(self.nodes) >= MAX_NODES:
            self.give_up("too-large", f"the network has more than {MAX_NODES:,} layers", span, scope)
        self.nodes.append(Node(path, op, tuple(x.node for x in inputs), made, weights, span=span))
        return Tensor(len(self.nodes) - 1, made)

    def _check_size(self, made: TensorType, what: str, span: Span) -> None:
        if made.elements > MAX_ELEMENTS:
            message = f"{what} would be {made}, {made.elements:,} values; the limit is {MAX_ELEMENTS:,}"
            raise Fault("too-large", message, span)

    # ---- labels

    def labelled(self, labelled: tree.Labelled, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        try:
            name = self.fresh(labelled.label, scope, x)
        except Fault as fault:
            self.faults.note(fault, scope.chain)
            scope.incomplete = True
            return self.statement(labelled.statement, scope, x)
        except Poisoned:
            scope.incomplete = True
            return self.statement(labelled.statement, scope, x)
        word = _NEVER_LABELLED.get(type(labelled.statement))
        if word:
            message = f"{word} makes nothing that the label `{name}` could name"
            self.faults.note(Fault("label", message, labelled.label.span), scope.chain)
            return self.statement(labelled.statement, scope, x)
        result = self.statement(labelled.statement, scope, x, name)
        scope.tensors[name] = result
        return result

    def fresh(self, label: tree.Label, scope: Scope, x: Tensor) -> str:
        """The text of a new label. Raises Fault when the scope has one of that name."""
        name = scope.text(label, x)
        if len(name) > MAX_LABEL:
            raise Fault("too-long", f"a label of {len(name):,} characters; the limit is {MAX_LABEL}", label.span)
        if "." in name:
            raise Fault("label", f"the label `{name}` has a dot", label.span, "a scope makes dotted names: a: { b: … }")
        if name in scope.tensors:
            message = f"`{name}` labels something else in this scope already"
            raise Fault("duplicate-label", message, label.span, _first_of(name, scope.labels.get(name), label.span))
        scope.labels[name] = label.span
        return name

    # ---- layers and blocks

    def call(self, call: tree.Call, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        blocks = scope.module.blocks
        if call.word in blocks:
            block = blocks[call.word]
            name = scope.child(label)
            scope.tensors[name] = POISON if block is None else self.block(block, call, name, scope, x)
            return scope.tensors[name]
        if call.word not in LAYERS:
            scope.child(label)
            if scope.module.file.broken:  # what could not be read may have been this block
                return POISON
            raise _unknown_word(call, blocks)
        return self.layer(call, scope, x, scope.child(label))

    def layer(self, call: tree.Call, scope: Scope, x: Tensor, name: str) -> Tensor:
        made, faults = layer_call(LAYERS[call.word], call, scope.names(x))
        for fault in faults:
            self.faults.note(fault, scope.chain)
        scope.tensors[name] = POISON
        if made is not None and x.type is not None:
            scope.tensors[name] = self.parts(made, x.type, name, scope, x)
        return scope.tensors[name]

    def parts(self, made: LayerCall, type_: TensorType, name: str, scope: Scope, x: Tensor) -> Tensor:
        try:
            ops = made.make(type_)
        except ShapeFault as fault:
            raise Fault("shape", fault.message, made.span, fault.hint) from None
        for suffix, op in ops:
            x = self.node(f"{name}.{suffix}" if suffix else name, op, (x,), scope, made.span)
        return x

    def block(self, found: BlockIn, call: tree.Call, name: str, scope: Scope, x: Tensor) -> Tensor:
        block = found.block
        if id(block) in self.running:
            names = " calls ".join([*self.running.values(), block.name])
            raise Fault("recursive-block", f"a block cannot call itself: {names}", call.span)
        parameters = [p.name for p in block.parameters]
        if len(parameters) > 1 and written_with_brackets(call):
            raise brackets(call, f"{block.name} {' '.join(parameters)}")
        bound, faults = bind(block.name, call.arguments, parameters, parameters)
        for fault in faults:
            self.faults.note(fault, scope.chain)
        inner = scope.open_block(name, found.module, Call(block.name, call.span))
        for parameter in block.parameters:
            inner.variables[parameter.name] = self.argument(parameter, bound, call, scope, inner, x)
        return self.run_block(block, inner, POISON if faults else x)

    def run_block(self, block: tree.Block, scope: Scope, x: Tensor) -> Tensor:
        self.called.add(id(block))
        self.running[id(block)] = block.name
        result = self.run(block.body, scope, x)
        del self.running[id(block)]
        return result

    def argument(
        self, parameter: tree.Parameter, bound: dict[str, tree.Argument], call: tree.Call, scope: Scope, inner: Scope,
        x: Tensor,
    ) -> Any:  # fmt: skip
        """What a block's parameter is: what the call gives, else its default (in terms of `in` and earlier ones)."""
        try:
            if parameter.name in bound:
                return evaluate(bound[parameter.name].value, scope.names(x))
            if parameter.default is not None:
                self.step(parameter.span, inner, parameter.default.span.end - parameter.default.span.start)
                scope = inner
                return evaluate(parameter.default, scope.names(x))
            raise Fault("missing-argument", f"{call.word} needs {parameter.name}", call.head)
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        except Poisoned:
            pass
        return UNKNOWN

    def scope(self, statement: tree.Scope, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        name = scope.child(label)
        scope.tensors[name] = self.run(statement.body, scope.open(name), x)
        return scope.tensors[name]


def _written(statement: tree.Statement) -> int:
    """Characters of the expressions in a statement; those of the statements inside it count when they run."""
    if isinstance(statement, tree.Scope):
        return 0
    span = statement.label.span if isinstance(statement, tree.Labelled) else statement.span
    return span.end - span.start


def _unknown_word(call: tree.Call, blocks: Iterable[str]) -> Fault:
    hint = did_you_mean(call.word, lambda: [*LAYERS, *tree.STATEMENT_WORDS, *blocks])
    if call.word == "else":
        hint = "`else` goes on the line of the closing brace before it"
    if call.word in tree.OUTSIDE_WORDS:
        hint = f"`{call.word}` stands outside of all braces"
    return Fault("unknown-layer", f"there is no layer or block `{call.word}`", call.head, hint)


def _first_of(name: str, first: Span | None, again: Span) -> Hint:
    """The hint for a label that is used twice: where it was first, which in a repeat is the same place."""
    if first == again:
        return f"in a repeat, number it: `repeat i in 1..n {{ {name}{{i}}: … }}`"
    return None if first is None else lambda: f"the first one is in line {first.line}"


_NEVER_LABELLED: dict[type, str] = {
    tree.From: "`from`", tree.Let: "`let`", tree.Skip: "`skip`", tree.InputLine: "`input`",
    tree.OutputLine: "`output`", tree.Expect: "`expect`", tree.WeightsLine: "`weights`",
}  # fmt: skip
