"""What is said about every malformed text in tests/golden/errors, word for word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from netdsl.errors import SourceError
from netdsl.graph.build import build

FOLDER = Path(__file__).parents[1] / "golden" / "errors"
NAMES = sorted(path.stem for path in FOLDER.glob("*.net"))


@pytest.mark.parametrize("name", NAMES)
def test_malformed_text(name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(SourceError) as caught:
        build(f"{name}.net")
    golden(f"errors/{name}.txt", caught.value.render() + "\n")


def test_there_are_many() -> None:
    assert len(NAMES) >= 60
