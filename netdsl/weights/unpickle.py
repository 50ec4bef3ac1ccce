"""A pickle reader that can build tensors' descriptions and nothing else.

`pickletools` (which runs nothing) splits the stream into opcodes; the machine here carries out those that make plain
data. A global is never imported: its name is looked up in ALLOWED, whose values only fill in the inert records below.
Any other name, and every opcode that would make or change an object of a class, is refused by name.

Cost is bounded by the file: at most MAX_PICKLE bytes and MAX_OPCODES opcodes; one opcode adds at most one object, no
nested object is ever hashed, compared or printed, and dictionaries keep only text keys.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netdsl.errors import WeightsError
from netdsl.tensor import Shape
from netdsl.weights.tensors import WeightsFile, c_strides, shown

MAX_PICKLE = 16 << 20  # bytes; chosen: a hundred times what DenseNet-121 takes
MAX_OPCODES = 1_000_000  # chosen: some 20,000 tensors
MAX_REPEATED = 1 << 24  # elements of a tensor whose storage has fewer (steps of 0); chosen: above any real layer's
MAX_INTEGER = 2**63  # chosen: PyTorch's own counts are int64

STATE_HINT = "save only the tensors: torch.save(model.state_dict(), path)"


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A run of values elsewhere in the file: `elements` of them from `start`, in the storage called `key`."""

    key: str
    dtype: str
    elements: int
    start: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Strided:
    """A tensor: a view of a storage. Offset and strides count elements; checked to stay inside the storage."""

    storage: Storage
    offset: int
    shape: Shape
    strides: Shape


@dataclass(frozen=True, slots=True, eq=False)
class StorageType:
    """The stand-in for torch.FloatStorage and its like."""

    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Builder:
    """The stand-in for an allowed global that may be called."""

    build: Callable[[Machine, tuple[Any, ...]], object]


class Ignored:
    """The stand-in for a value that is no weight (a NumPy number, a set of backward hooks)."""

    __slots__ = ()


IGNORED = Ignored()


class Machine:
    """Runs the pickles of one file. `storages` collects what the tensors refer to, by key."""

    def __init__(self, file: WeightsFile) -> None:
        self.file = file
        self.storages: dict[str, Storage] = {}
        self.left = MAX_OPCODES
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The next pickle of the stream, which is left behind its last byte. Raises WeightsError."""
        self.stack, self.marks, self.memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                self.spend(1)
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
        except WeightsError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError):
            pass  # a damaged stream: an argument cut short, an empty stack, an operand of the wrong kind
        if not stream.read(1):
            if stream.tell() >= MAX_PICKLE:
                raise self.file.fault("weights-too-large", f"its pickle is longer than {MAX_PICKLE} bytes")
            raise self.file.fault("weights-truncated", "the pickle in it ends too early; the file is cut short")
        raise self.file.fault("weights-format", f"the pickle in it is damaged near byte {stream.tell() - 1}")

    def spend(self, steps: int) -> None:
        """Count work against what one file may cost."""
        self.left -= steps
        if self.left < 0:
            raise self.file.fault("weights-too-large", f"its pickle takes more than {MAX_OPCODES} steps")

    def fault(self, message: str) -> WeightsError:
        return self.file.fault("weights-format", message)

    def refuse(self, name: str) -> WeightsError:
        """The file asks for something that could run code."""
        message = f"refused: its pickle asks for {shown(name)}, and only tensors are read from one; nothing was run"
        return self.file.fault("weights-unsafe", message, hint=STATE_HINT)

    def _step(self, name: str, argument: Any) -> None:
        if name in PLAIN:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        elif name not in NOTHING:
            raise self.refuse(f"opcode {name}")

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def put(self, index: int) -> None:
        if not 0 <= index < 2**32:
            raise ValueError
        self.memo[index] = self.stack[-1]

    def find(self, module: Any, name: Any) -> object:
        """The stand-in for a global; nothing is imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.refuse("a global that has no name")
        if len(module) + len(name) > 100 or f"{module}.{name}" not in ALLOWED:
            raise self.refuse(f"{shown(module)}.{shown(name)}")
        return ALLOWED[f"{module}.{name}"]

    def call(self, function: object, arguments: object) -> object:
        """What an allowed function makes of its arguments (few, so that a call costs no more than another step)."""
        if not isinstance(function, Builder) or not isinstance(arguments, tuple) or len(arguments) > 8:
            raise self.fault("the pickle in it calls something that is no tensor function")
        return function.build(self, arguments)

    def set_items(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                continue  # numbers (optimizer states) name no tensor; other keys could be made slow to hash
            if key in target:
                raise self.fault(f"the name {shown(key)} stands in it twice")
            target[key] = value

    def extend(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, list):
            raise ValueError
        target.extend(items)

    def storage(self, reference: Any) -> Storage:
        """A persistent reference: ("storage", type, key, device, elements[, view of another])."""
        if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
            raise self.fault("the pickle in it refers to something that is no tensor storage")
        _, kind, key, _, elements, *view = reference
        if not isinstance(kind, StorageType) or not isinstance(key, str) or not is_count(elements):
            raise self.fault("a tensor storage in it is described wrongly")
        known = self.storages.setdefault(key, Storage(key, kind.dtype, elements))
        if known.dtype != kind.dtype or known.elements != elements:
            raise self.fault(f"the tensor storage {shown(key)} is described in two different ways")
        return self._window(known, view[0]) if view and view[0] is not None else known

    def _window(self, whole: Storage, view: Any) -> Storage:
        """A view of a storage (older files): (key, first element, elements)."""
        if not isinstance(view, tuple) or len(view) != 3 or not is_count(view[1]) or not is_count(view[2]):
            raise self.fault("a view of a tensor storage in it is described wrongly")
        if view[1] + view[2] > whole.elements:
            raise self.fault("a view of a tensor storage in it leads out of the storage")
        return Storage(whole.key, whole.dtype, view[2], view[1])

    def tensor(self, storage: Any, offset: Any, sizes: Any, strides: Any, *_: Any) -> Strided:
        """A tensor as torch._utils._rebuild_tensor makes it."""
        if not isinstance(storage, Storage) or not is_count(offset):
            raise self.fault("a tensor in it is described wrongly")
        shape = self.file.shape("a tensor", sizes)
        if not isinstance(strides, tuple) or len(strides) != len(shape) or not all(map(is_count, strides)):
            raise self.fault("the strides of a tensor in it are described wrongly")
        if 0 in shape:
            return Strided(storage, 0, shape, c_strides(shape))
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if last >= storage.elements:
            raise self.fault("a tensor in it reaches beyond the end of its storage")
        if math.prod(shape) > max(storage.elements, MAX_REPEATED):
            raise self.file.fault("weights-too-large", "a tensor in it repeats a small storage too often")
        return Strided(storage, storage.start + offset, shape, strides)


def is_count(value: object) -> bool:
    """Whether this is a whole number from 0 to what int64 holds."""
    return type(value) is int and 0 <= value < MAX_INTEGER


def _parameter(machine: Machine, arguments: tuple[Any, ...]) -> object:
    if not arguments or not isinstance(arguments[0], Strided):
        raise machine.fault("a parameter in it holds no tensor")
    return arguments[0]


def _ordered(machine: Machine, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """OrderedDict(), or OrderedDict([[key, value], ...]) as Python 2 pickled it."""
    out: dict[str, Any] = {}
    pairs = arguments[0] if arguments else []
    machine.spend(len(pairs))
    for key, value in pairs:
        machine.set_items(out, [key, value])
    return out


def _tensor(machine: Machine, arguments: tuple[Any, ...]) -> object:
    return machine.tensor(*arguments)


def _size(machine: Machine, arguments: tuple[Any, ...]) -> object:
    return arguments[0]


def _ignored(machine: Machine, arguments: tuple[Any, ...]) -> object:
    return IGNORED


STORAGE_TYPES = {
    "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16", "DoubleStorage": "float64",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip

ALLOWED: dict[str, object] = {
    "collections.OrderedDict": Builder(_ordered),
    "torch._utils._rebuild_tensor": Builder(_tensor),
    "torch._utils._rebuild_tensor_v2": Builder(_tensor),
    "torch._utils._rebuild_parameter": Builder(_parameter),
    "torch.Size": Builder(_size),
    "torch.storage.UntypedStorage": StorageType("uint8"),
    "torch.UntypedStorage": StorageType("uint8"),
    **{f"torch.{name}": StorageType(dtype) for name, dtype in STORAGE_TYPES.items()},
    # a best accuracy beside the weights is often a NumPy number: read over, never made
    "numpy.core.multiarray.scalar": Builder(_ignored),
    "numpy._core.multiarray.scalar": Builder(_ignored),
    "numpy.dtype": Builder(_ignored),
    "_codecs.encode": Builder(_ignored),
}

PLAIN = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
})  # fmt: skip
NOTHING = frozenset({"PROTO", "FRAME"})
CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict,
}  # fmt: skip


def _pop(m: Machine, _: Any) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _tuple(count: int) -> Callable[[Machine, Any], None]:
    def act(m: Machine, _: Any) -> None:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]

    return act


def _dict(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    out: dict[str, Any] = {}
    m.set_items(out, items)
    m.stack.append(out)


def _set_item(m: Machine, _: Any) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_items(m.stack[-1], [key, value])


def _set_items(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    m.set_items(m.stack[-1], items)


def _append(m: Machine, _: Any) -> None:
    value = m.stack.pop()
    m.extend(m.stack[-1], [value])


def _appends(m: Machine, _: Any) -> None:
    items = m.pop_mark()
    m.extend(m.stack[-1], items)


def _marked(kind: Callable[[list[Any]], object]) -> Callable[[Machine, Any], None]:
    def act(m: Machine, _: Any) -> None:
        items = m.pop_mark()
        m.stack.append(kind(items))

    return act


def _global(m: Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    m.stack.append(m.find(module, name))


def _inst(m: Machine, argument: str) -> None:
    """Makes an object of a class: refused, by the class's name if that is foreign too."""
    _global(m, argument)
    raise m.refuse("opcode INST")


def _stack_global(m: Machine, _: Any) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.find(module, name))


def _reduce(m: Machine, _: Any) -> None:
    arguments, function = m.stack.pop(), m.stack.pop()
    m.stack.append(m.call(function, arguments))


def _build(m: Machine, _: Any) -> None:
    """State set on an object (a state_dict's version numbers): dropped; only plain records stand here to take it."""
    m.stack.pop()
    if not isinstance(m.stack[-1], (dict, Ignored)):
        raise m.refuse("opcode BUILD on something that is no dictionary")


ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "POP": _pop,
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "PUT": Machine.put, "BINPUT": Machine.put, "LONG_BINPUT": Machine.put,
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    **{name: lambda m, index: m.stack.append(m.memo[index]) for name in ("GET", "BINGET", "LONG_BINGET")},
    "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3), "TUPLE": _marked(tuple),
    "LIST": _marked(list), "APPEND": _append, "APPENDS": _appends,
    "DICT": _dict, "SETITEM": _set_item, "SETITEMS": _set_items,
    "GLOBAL": _global, "STACK_GLOBAL": _stack_global, "INST": _inst, "REDUCE": _reduce, "BUILD": _build,
    "BINPERSID": lambda m, _: m.stack.append(m.storage(m.stack.pop())),
}  # fmt: skip
