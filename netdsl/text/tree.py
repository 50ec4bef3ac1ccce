"""The syntax tree: what a .net text says, each node with its place. Nothing here knows layers, values or shapes."""

from __future__ import annotations

from netdsl.errors import Span
from netdsl.frozen import frozen

MAX_BYTES = 256 * 1024  # chosen: of a text, a hundred times the longest network that ships
MAX_INTEGER = 2**63 - 1  # chosen: what NumPy's integers hold

# ---- expressions


@frozen
class Literal:
    """An integer, a float or a quoted string."""

    value: int | float | str
    span: Span


@frozen
class Size:
    """A size such as 3x224x224; None stands for `?`."""

    parts: tuple[int | None, ...]
    span: Span


@frozen
class Name:
    """A variable, `in.c`, yes or no, or a bare word, whichever it turns out to be."""

    text: str
    span: Span


@frozen
class Items:
    """`(a, b)` or `[a, b]`."""

    items: tuple[Expression, ...]
    span: Span


@frozen
class Unary:
    """`-x` or `not x`."""

    operator: str
    operand: Expression
    span: Span


@frozen
class Chain:
    """Operators of one strength, from left to right: `first op x op y`. Flat, so that long sums nest no deeper."""

    first: Expression
    rest: tuple[tuple[str, Expression], ...]
    span: Span


@frozen
class Function:
    """`min(a, b)` and the like."""

    name: str
    arguments: tuple[Expression, ...]
    span: Span


Expression = Literal | Size | Name | Items | Unary | Chain | Function


@frozen
class Label:
    """A label, or a reference to one; expressions are the parts of a template such as enc{i}."""

    parts: tuple[str | Expression, ...]
    span: Span


@frozen
class Argument:
    """An argument of a call: by position when `key` is None."""

    key: str | None
    value: Expression
    span: Span


# ---- statements


@frozen
class Body:
    """Everything between two braces: lines, each a pipeline of statements."""

    lines: tuple[tuple[Statement, ...], ...]
    span: Span


@frozen
class Labelled:
    """`label: statement`."""

    label: Label
    statement: Statement
    span: Span


@frozen
class Call:
    """A layer, or a call of a block; `head` is the span of the word."""

    word: str
    arguments: tuple[Argument, ...]
    head: Span
    span: Span


@frozen
class Scope:
    """`{ … }` standing as a statement."""

    body: Body
    span: Span


@frozen
class SkipPath:
    """The second path of a residual."""

    label: Label | None
    condition: Expression | None
    body: Body
    span: Span


@frozen
class Residual:
    """`residual { … } skip label when condition { … }`; `span` covers the first word only."""

    body: Body
    skip: SkipPath | None
    span: Span


@frozen
class Branches:
    """`branches concat|add|mul { … }`: each line is an arm; `span` covers the first two words."""

    kind: str
    body: Body
    span: Span


@frozen
class Skip:
    """The identity arm."""

    span: Span


@frozen
class Join:
    """`concat a b`, `add a`, `mul a`."""

    kind: str
    references: tuple[Label, ...]
    span: Span


@frozen
class From:
    """`from label`."""

    reference: Label
    span: Span


@frozen
class Repeat:
    """`repeat n { … }` (`first` is None) or `repeat i in first..last { … }`; `span` covers the head."""

    index: str | None
    first: Expression | None
    last: Expression
    body: Body
    span: Span


@frozen
class When:
    """`when c { … } else when d { … } else { … }`; a condition of None is the else."""

    arms: tuple[tuple[Expression | None, Body], ...]
    span: Span


@frozen
class Let:
    """`let name = value`."""

    name: str
    value: Expression
    span: Span


@frozen
class InputLine:
    """`input name size option=value …`; `head` is the span of the name."""

    name: str
    arguments: tuple[Argument, ...]
    head: Span
    span: Span


@frozen
class OutputLine:
    """`output name`."""

    name: str
    span: Span


@frozen
class Expect:
    """`expect fact=value …`."""

    arguments: tuple[Argument, ...]
    span: Span


@frozen
class WeightsLine:
    """`weights "file"` or `weights "url" sha256="…"`."""

    arguments: tuple[Argument, ...]
    span: Span


@frozen
class Broken:
    """A statement or declaration that could not be read; the body, if one followed, could."""

    body: Body | None
    span: Span


Statement = (
    Labelled | Call | Scope | Residual | Branches | Skip | Join | From | Repeat | When | Let
    | InputLine | OutputLine | Expect | WeightsLine | Broken
)  # fmt: skip

STATEMENT_WORDS = (
    "residual", "skip", "branches", "concat", "add", "mul", "from", "repeat", "when", "let", "input", "output",
    "expect", "weights",
)  # fmt: skip

OUTSIDE_WORDS = ("use", "block", "net")

# ---- files


@frozen
class Parameter:
    """A parameter of a block or net."""

    name: str
    default: Expression | None
    span: Span


@frozen
class Use:
    """`use "path" (names)`."""

    path: Literal
    names: tuple[Name, ...]
    span: Span


@frozen
class Block:
    """`block name(parameters) { … }`; `span` is that of the name."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Body
    span: Span


@frozen
class Net:
    """`net name(parameters) { … }`; `span` is that of the name."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Body
    span: Span


@frozen
class File:
    """One text. `span` is its first line."""

    items: tuple[Use | Block | Net | Broken, ...]
    span: Span

    @property
    def uses(self) -> tuple[Use, ...]:
        return tuple(i for i in self.items if isinstance(i, Use))

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(i for i in self.items if isinstance(i, Block))

    @property
    def nets(self) -> tuple[Net, ...]:
        return tuple(i for i in self.items if isinstance(i, Net))

    @property
    def broken(self) -> bool:
        """Whether a declaration could not be read, so that what it declared is unknown."""
        return any(isinstance(i, Broken) for i in self.items)
