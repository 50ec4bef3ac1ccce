"""The networks that ship, with what they cost and what accuracy was published for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from netdsl.graph import library
from netdsl.graph.build import build
from netdsl.graph.ir import WeightsSpec


@dataclass(frozen=True)
class Shipped:
    """One network of the library.

    name        what commands and `compile` take
    parameters  learnable values; macs: multiply-accumulates for one image
    top1, top5  published accuracy in percent, on `data`, according to `source`; None where none is known
    weights     where `weights="pretrained"` gets them: "ships", "package", "download", or None
    """

    name: str
    parameters: int
    macs: int
    top1: float | None
    top5: float | None
    data: str | None
    source: str | None
    weights: str | None


def catalogue() -> Iterator[Shipped]:
    """Every network that ships, built one after another."""
    published = json.loads((library.folder() / "published.json").read_text(encoding="utf-8"))
    for name in library.names():
        graph, known = build(name), published.get(name, {})
        yield Shipped(
            name, graph.parameters, graph.macs,
            known.get("acc1"), known.get("acc5"), known.get("data"), known.get("source"), _kind(graph.weights),
        )  # fmt: skip


def _kind(spec: WeightsSpec | None) -> str | None:
    if spec is None:
        return None
    if spec.url is not None:
        return "download"
    return "package" if str(spec.path).startswith("package:") else "ships"
