"""Every malformed sample is malformed, and gets its own message."""

from __future__ import annotations

import pytest

from netdsl.errors import Source
from netdsl.text import explain
from netdsl.text.parse import lark, parse_tolerant
from netdsl.text.samples import SAMPLES, Sample


@pytest.mark.parametrize("sample", SAMPLES, ids=[s.message for s in SAMPLES])
def test_sample(sample: Sample) -> None:
    for text in sample.texts:
        met = explain.key(lark(), text, sample.outside)
        assert met is not None, f"{text!r} is not malformed"
        assert sample.message.format(found="x")
        assert explain.table(lark())[met] == (sample.message, sample.hint), f"{text!r} belongs to another sample"


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("residul {\n relu\n}", "a layer has no body in braces", "did you mean `residual`?"),
        ("branch concat {\n relu\n}", "a layer has no body in braces", "did you mean `branches`?"),
        ("else {\n relu\n}", "a layer has no body in braces", "`else` goes on the line"),
        ('weights "a', "the quoted string does not end", "close it"),
        ("conv 3×3", "the character `×` is not part of a size", "write an x"),
        ("conv 3X3", "`3X3` is neither a number nor a size", "a size is written 3x3"),
        ("conv 64ch", "`64ch` is neither", "names do not start with a digit"),
        ("conv 1.2.3", "`1.2.3` is neither", "a size is"),
        ("relu ;", "the character `;` has no meaning here", None),
        ("relu \x07", "the character U+0007 has no meaning here", None),
        ("conv ünder", "the character `ü` has no meaning here", None),
    ],
)
def test_message(line: str, message: str, hint: str | None) -> None:
    _, faults = parse_tolerant(Source("t", f"netdsl 1\nnet n {{\n  {line}\n}}\n"))
    assert message in faults[0].message
    assert (hint is None) == (faults[0].hint is None) and (hint or "") in (faults[0].hint or "")


def test_long_words_are_cut() -> None:
    _, faults = parse_tolerant(Source("t", "netdsl 1\nnet n {\n let a b" + "c" * 10_000 + "\n}\n"))
    assert len(faults[0].message) < 200 and len(faults[0].render()) < 600
