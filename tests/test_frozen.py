"""Frozen classes behave as `dataclass(frozen=True)` makes them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from typing import Any

import pytest

from netdsl.frozen import frozen


@frozen
class Ours:
    a: int
    b: tuple[int, ...] = (1, 2)
    c: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Theirs:
    a: int
    b: tuple[int, ...] = (1, 2)
    c: dict[str, int] = field(default_factory=dict)


@frozen
class Longer(Ours):
    d: str = "d"

    def __repr__(self) -> str:
        return "its own"


BOTH = pytest.mark.parametrize("kind", [Ours, Theirs])


@BOTH
def test_values_are_given_by_place_or_name_or_default(kind: Any) -> None:
    made = kind(1, c={"x": 2})
    assert (made.a, made.b, made.c) == (1, (1, 2), {"x": 2}) == tuple(asdict(made).values())
    assert kind(1).c is not kind(1).c


@BOTH
@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"a": 2}), ((1,), {"z": 2})])
def test_wrong_values_are_refused(kind: Any, values: Any, named: Any) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


@BOTH
def test_nothing_is_assigned_or_deleted(kind: Any) -> None:
    made = kind(1)
    with pytest.raises(FrozenInstanceError):
        made.a = 2
    with pytest.raises(FrozenInstanceError):
        del made.a
    assert made.a == 1


@BOTH
def test_equality_and_hash_are_those_of_the_values(kind: Any) -> None:
    assert kind(1) == kind(1) != kind(2)
    assert kind(1) != (1, (1, 2), {})
    assert len({kind(1, c=None), kind(1, c=None), kind(2, c=None)}) == 2


@BOTH
def test_copies_keep_the_values(kind: Any) -> None:
    made = kind(3, (4,))
    assert replace(made, a=5) == kind(5, (4,))
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made


def test_text_form() -> None:
    assert repr(Ours(1)) == repr(Theirs(1)).replace("Theirs", "Ours")


def test_a_subclass_adds_fields_and_keeps_its_own_methods() -> None:
    assert Longer(1, d="e").d == "e" and repr(Longer(1)) == "its own"
    assert Longer(1) != Ours(1)
