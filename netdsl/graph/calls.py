"""Arguments of calls: which argument is meant for which parameter, and layer words with their values converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netdsl.errors import Span
from netdsl.frozen import frozen
from netdsl.graph.faults import Fault, Poisoned, did_you_mean
from netdsl.graph.values import Names, evaluate, show
from netdsl.ops.base import ArgumentFault, Layer, Op, Option, Word
from netdsl.tensor import TensorType
from netdsl.text import tree


def bind(
    what: str, arguments: Sequence[tree.Argument], positional: Sequence[str], known: Sequence[str]
) -> tuple[dict[str, tree.Argument], list[Fault]]:
    """Arguments by parameter name, and what is wrong with them. `positional` may be given by position, in order."""
    bound: dict[str, tree.Argument] = {}
    faults: list[Fault] = []
    free, names = iter(positional), frozenset(known)
    for argument in arguments:
        name = next(free, None) if argument.key is None else argument.key
        if name is None:
            faults.append(_too_many(what, arguments, positional, known, argument.span))
            break
        if name not in names:
            faults.append(_unknown(what, name, known, argument.span))
        elif name in bound:
            faults.append(Fault("duplicate-argument", f"{what}: {name} is given twice", argument.span))
        else:
            bound[name] = argument
    return bound, faults


def _too_many(
    what: str, arguments: Sequence[tree.Argument], positional: Sequence[str], known: Sequence[str], span: Span
) -> Fault:
    given = sum(a.key is None for a in arguments)
    listed = f" ({', '.join(positional)})" if positional else ""
    takes = f"{len(positional)} argument{'s' * (len(positional) != 1)} without a name{listed}"
    named = [k for k in known if k not in positional]
    hint = f"by name it takes {', '.join(f'{k}=' for k in named)}" if named else None
    return Fault("too-many-arguments", f"{what} takes {takes}, found {given}", span, hint)


def _unknown(what: str, name: str, known: Sequence[str], span: Span) -> Fault:
    otherwise = f"it takes {', '.join(known)}" if known else "it takes no arguments"
    hint = did_you_mean(name, lambda: known, otherwise)
    return Fault("unknown-option", f"{what} has no option `{name}`", span, hint)


@frozen
class LayerCall:
    """A layer word with every argument's value; `spans` says where the written ones stand."""

    layer: Layer
    values: Mapping[str, Any]
    spans: Mapping[str, Span]
    span: Span

    def make(self, x: TensorType) -> list[tuple[str, Op]]:
        """Path suffix and operation of each part, for an input of type x. Raises Fault, ShapeFault."""
        ops: list[tuple[str, Op]] = []
        try:
            for suffix, make in self.layer.parts:
                op = make(x, **self.values)
                ops.append((suffix, op))
                if len(self.layer.parts) > 1:
                    x = op.infer(x)
        except ArgumentFault as fault:
            span = self.spans.get(fault.option or "", self.span)
            raise Fault("bad-argument", f"{self.layer.name}: {fault.message}", span, fault.hint) from None
        return ops


def layer_call(layer: Layer, call: tree.Call, names: Names) -> tuple[LayerCall | None, list[Fault]]:
    """The layer with its values, or None with what is wrong (nothing, when a value is unknown for an older fault)."""
    options = layer.arguments
    bound, faults = bind(call.word, call.arguments, [o.name for o in layer.positional], list(options))
    values = {name: option.default for name, option in options.items()}
    poisoned = False
    for name, argument in bound.items():
        try:
            values[name] = convert(call.word, options[name], argument.value, names)
        except Fault as fault:
            faults.append(fault)
        except Poisoned:
            poisoned = True
    for name, option in options.items():
        if option.required and name not in bound and not any(f.code == "too-many-arguments" for f in faults):
            hint = f"for example `{layer.example}`" if layer.example else None
            message = f"{call.word} needs {name}: {option.kind.expected}"
            faults.append(Fault("missing-argument", message, call.head, hint))
    if faults and written_with_brackets(call):
        return None, [brackets(call, layer.example)]
    if faults or poisoned:
        return None, faults
    spans = {name: argument.span for name, argument in bound.items()}
    return LayerCall(layer, values, spans, call.span), []


def written_with_brackets(call: tree.Call) -> bool:
    """Whether a call looks like `conv(64, 3x3)`."""
    first = call.arguments[0].value if call.arguments else None
    return isinstance(first, tree.Items) and first.span.start == call.head.end


def brackets(call: tree.Call, example: str) -> Fault:
    """The fault of writing `conv(64, 3x3)`."""
    message = f"arguments stand behind {call.word} without brackets and commas"
    return Fault("brackets", message, call.span, f"for example `{example}`")


def convert(what: str, option: Option, value: tree.Expression, names: Names) -> Any:
    """The value of an argument as its option's kind wants it. Raises Fault."""
    found = evaluate(value, names)
    try:
        return option.kind.convert(found)
    except (ValueError, TypeError, OverflowError):
        hint = did_you_mean(found, lambda: [*_choices(option), *names.known()]) if isinstance(found, Word) else None
        message = f"{what}: {option.name} must be {option.kind.expected}, found {show(found)}"
        raise Fault("bad-argument", message, value.span, hint) from None


def _choices(option: Option) -> list[str]:
    """Words that an option's description names."""
    return option.kind.expected.replace(",", " ").split()
