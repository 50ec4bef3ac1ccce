"""Values of the language, and expressions evaluated at compile time.

A value is an int, float, bool, quoted str, Word, or a tuple of values. Sizes are tuples. UNKNOWN stands for a value
that a fault has made unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from netdsl.errors import Span
from netdsl.graph.faults import Fault, Hint, Poisoned, did_you_mean
from netdsl.ops.base import Word
from netdsl.tensor import TensorType
from netdsl.text import tree
from netdsl.text.tree import MAX_INTEGER

CONSTANTS = {"yes": True, "true": True, "no": False, "false": False}


class Unknown:
    """A value that is not known because of an earlier fault."""


UNKNOWN = Unknown()


class Names:
    """What the names of an expression mean: variables, and `in`, the type of the current tensor (None: unknown)."""

    def __init__(self, find: Callable[[str], Any], known: Callable[[], Sequence[str]], x: TensorType | None) -> None:
        self.find, self.known, self.x = find, known, x


def check_name(name: str, span: Span) -> None:
    """Raises Fault for a name that cannot be given to a value."""
    if name in CONSTANTS or name == "in":
        raise Fault("reserved", f"`{name}` has a meaning of its own and cannot be given another", span)


def show(value: Any) -> str:
    """A value as messages quote it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Word):
        return f"the word `{value}`"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        if len(value) in (2, 3) and all(type(v) is int and v >= 0 for v in value):
            return "x".join(map(str, value))
        return f"({', '.join(map(show, value))})"
    return str(value)


def evaluate(expression: tree.Expression, names: Names) -> Any:
    """The value of an expression. Raises Fault, or Poisoned when it depends on something unknown."""
    match expression:
        case tree.Literal():
            return expression.value
        case tree.Size():
            if None in expression.parts:
                raise Fault("free-size", "only an input's height and width may be `?`", expression.span)
            return expression.parts
        case tree.Name():
            return _name(expression, names)
        case tree.Items():
            return tuple(evaluate(item, names) for item in expression.items)
        case tree.Unary():
            return _unary(expression, names)
        case tree.Chain():
            return _chain(expression, names)
        case tree.Function():
            return _function(expression, names)


def condition(expression: tree.Expression, names: Names) -> bool:
    """The value of an expression that must be yes or no."""
    return _flag(evaluate(expression, names), expression, names)


def whole(expression: tree.Expression, names: Names, what: str) -> int:
    """The value of an expression that must be a whole number."""
    value = evaluate(expression, names)
    if type(value) is not int:
        hint = _did_you_mean(value, names)
        raise Fault("type", f"{what} must be a whole number, found {show(value)}", expression.span, hint)
    return value


def _name(name: tree.Name, names: Names) -> Any:
    if name.text in CONSTANTS:
        return CONSTANTS[name.text]
    head, _, rest = name.text.partition(".")
    if head == "in":
        return _current(name, rest, names.x)
    value = names.find(name.text)
    if value is UNKNOWN:
        raise Poisoned
    if value is None and rest:
        hint = "only `in` has parts: in.c, in.h, in.w; names of files are quoted"
        raise Fault("unknown-name", f"`{name.text}` is no value here", name.span, hint)
    if value is None:
        return Word(name.text)
    return value


def _current(name: tree.Name, part: str, x: TensorType | None) -> int:
    if part not in ("c", "h", "w"):
        raise Fault("unknown-name", f"`{name.text}` is no value", name.span, "write in.c, in.h or in.w")
    if x is None:
        raise Poisoned
    if part != "c" and not x.is_map:
        raise Fault("shape", f"{name.text} needs a map, found a vector of {x}", name.span)
    return x.shape["chw".index(part)]


def _did_you_mean(value: Any, names: Names) -> Hint:
    """The hint for a word that was meant to be a variable."""
    return did_you_mean(value, names.known) if isinstance(value, Word) else None


def _number(value: Any, at: tree.Expression, names: Names) -> int | float:
    if isinstance(value, Word):
        raise Fault("unknown-name", f"there is no value named `{value}`", at.span, _did_you_mean(value, names))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Fault("type", f"expected a number, found {show(value)}", at.span)
    return value


def _flag(value: Any, at: tree.Expression, names: Names) -> bool:
    if isinstance(value, Word):
        raise Fault("unknown-name", f"there is no value named `{value}`", at.span, _did_you_mean(value, names))
    if not isinstance(value, bool):
        raise Fault("type", f"expected yes or no, found {show(value)}", at.span)
    return value


def _checked(value: Any, span: Span) -> Any:
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        shown = str(value) if abs(value) < 10**40 else "the result"
        raise Fault("overflow", f"{shown} is too large: whole numbers end at 2^63 - 1", span)
    if isinstance(value, float) and not math.isfinite(value):
        raise Fault("overflow", "the result is too large for a number", span)
    return value


def _unary(expression: tree.Unary, names: Names) -> Any:
    value = evaluate(expression.operand, names)
    if expression.operator == "not":
        return not _flag(value, expression.operand, names)
    return -_number(value, expression.operand, names)


def _chain(chain: tree.Chain, names: Names) -> Any:
    if chain.rest[0][0] in ("and", "or"):
        return _logic(chain, names)
    value, at = evaluate(chain.first, names), chain.first
    for operator, operand in chain.rest:
        right = evaluate(operand, names)
        if operator in ("==", "!="):
            return _equal(value, right, chain, names) == (operator == "==")
        value = _apply(operator, _number(value, at, names), _number(right, operand, names), operand.span)
        value = _checked(value, chain.span)
    return value


def _logic(chain: tree.Chain, names: Names) -> bool:
    """`and` and `or`, which stop as soon as the answer is known."""
    stop = chain.rest[0][0] == "or"
    for part in (chain.first, *(x for _, x in chain.rest)):
        if condition(part, names) == stop:
            return stop
    return not stop


def _kind(value: Any) -> str:
    for kind, name in ((bool, "flag"), ((int, float), "number"), (str, "word")):
        if isinstance(value, kind):
            return name
    return "list"


def _equal(left: Any, right: Any, chain: tree.Chain, names: Names) -> bool:
    if _kind(left) != _kind(right):
        hint = _did_you_mean(left if isinstance(left, Word) else right, names)
        raise Fault("type", f"{show(left)} and {show(right)} cannot be compared", chain.span, hint)
    return bool(left == right)


def _apply(operator: str, a: int | float, b: int | float, divisor: Span) -> Any:
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "<":
            return a < b
        case "<=":
            return a <= b
        case ">":
            return a > b
        case ">=":
            return a >= b
    if b == 0:
        raise Fault("division", "division by zero", divisor)
    match operator:
        case "//":
            return a // b
        case "%":
            return a % b
    # Whole numbers that divide without rest give a whole number, so that `conv (in.c / 2) 1x1` means what it says.
    return a // b if type(a) is type(b) is int and a % b == 0 else a / b


_FUNCTIONS: dict[str, tuple[Callable[..., Any], int | None]] = {  # number of arguments, None for one or more
    "min": (min, None),
    "max": (max, None),
    "abs": (abs, 1),
    "floor": (math.floor, 1),
    "ceil": (math.ceil, 1),
    "round": (lambda x: math.floor(x + 0.5), 1),
}


def _function(call: tree.Function, names: Names) -> Any:
    if call.name not in _FUNCTIONS:
        hint = did_you_mean(call.name, lambda: list(_FUNCTIONS), f"there are {', '.join(_FUNCTIONS)}")
        raise Fault("unknown-function", f"there is no function `{call.name}`", call.span, hint)
    function, count = _FUNCTIONS[call.name]
    values = [_number(evaluate(a, names), a, names) for a in call.arguments]
    if count is not None and len(values) != count:
        raise Fault("type", f"{call.name} takes {count} number, found {len(values)}", call.span)
    return _checked(function(*values) if count else function(values), call.span)
