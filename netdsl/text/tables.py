"""The parser of .net files, its tables made once a machine: making them takes Lark longer than a network takes to run.

They are kept as JSON, and made anew for another grammar, Lark or Python.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from netdsl import kept


def parser(grammar: str) -> lark.Lark:
    """LALR(1) with a contextual lexer, for the three things that are parsed."""
    path = _path(grammar)
    content = kept.read(path)
    if content is not None:
        # What another Lark's idea of its tables may raise:
        with suppress(AssertionError, AttributeError, LookupError, TypeError, ValueError, lark.exceptions.LarkError):
            known: Any = lark.Lark
            kept_parser: lark.Lark = known._load_from_dict(**_with_numbers(json.loads(content)))
            return kept_parser
    made = lark.Lark(grammar, parser="lalr", lexer="contextual", start=["start", "headless", "expression"])
    data, memo = made.memo_serialize([TerminalDef, Rule])
    with suppress(OSError):  # then the next process makes them too
        kept.write(path, json.dumps({"data": data, "memo": memo}).encode())
    return made


def _path(grammar: str) -> Path:
    digest = sha256("\0".join((grammar, lark.__version__, sys.version)).encode()).hexdigest()
    return kept.folder("tables") / f"netdsl-{digest[:24]}.json"


def _with_numbers(value: Any) -> Any:
    """JSON's keys are texts; those of Lark's tables are numbers."""
    if isinstance(value, dict):
        return {int(k) if k.isdecimal() else k: _with_numbers(v) for k, v in value.items()}
    return [_with_numbers(v) for v in value] if isinstance(value, list) else value
