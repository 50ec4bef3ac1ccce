"""Frozen dataclasses that share their methods instead of having them generated.

`@dataclass(frozen=True)` compiles six methods for each class, half a millisecond a class; syntax tree, operators and
graph have so many classes that this was most of the time `import netdsl.compiler` took.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field
from typing import Any, TypeVar, dataclass_transform

C = TypeVar("C")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[C]) -> type[C]:
    """What `dataclass(frozen=True)` makes of a class, without slots and keyword-only fields."""
    made = dataclass(init=False, repr=False, eq=False)(cls)
    for name in ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"):
        if name not in cls.__dict__:
            setattr(made, name, _Shared.__dict__[name])
    return made


class _Shared:
    def __init__(self: Any, /, *values: Any, **named: Any) -> None:
        names = self.__match_args__
        if named or len(values) != len(names):
            values = _completed(self, values, named)
        self.__dict__.update(zip(names, values, strict=True))
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{n}={self.__dict__[n]!r}' for n in self.__match_args__)})"

    def __eq__(self: Any, other: Any) -> Any:
        return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(_values(self))

    def __setattr__(self: Any, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self: Any, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


def _completed(self: Any, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """The values of all fields in their order."""
    names = self.__match_args__
    given = dict(zip(names, values, strict=False))
    if len(values) > len(names) or not named.keys() <= set(names) - given.keys():
        raise TypeError(f"{type(self).__name__} takes {', '.join(names)}, each once")
    given |= named
    return tuple([given[name] if name in given else _default(self, name) for name in names])


def _default(self: Any, name: str) -> Any:
    known = self.__dataclass_fields__[name]
    if known.default_factory is not MISSING:
        return known.default_factory()
    if known.default is MISSING:
        raise TypeError(f"{type(self).__name__} needs {name}")
    return known.default


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([self.__dict__[name] for name in self.__match_args__])
