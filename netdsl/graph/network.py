"""The statements that only a net has: its inputs, outputs, expected facts and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from netdsl.errors import InputError, Span
from netdsl.frozen import frozen
from netdsl.graph import preprocess
from netdsl.graph.calls import bind
from netdsl.graph.faults import Fault, Faults, Poisoned, did_you_mean
from netdsl.graph.ir import Graph, InputSpec, Node, OutputSpec, WeightsSpec
from netdsl.graph.library import folder, locate, printable
from netdsl.graph.scope import POISON, Scope, Tensor
from netdsl.graph.structure import Structure
from netdsl.graph.values import evaluate, show
from netdsl.ops.base import Input
from netdsl.tensor import MAX_ELEMENTS, Shape, TensorType
from netdsl.text import tree

DEFAULT_SIDE = 256  # chosen: height and width of an input that leaves them free, until data says otherwise


@frozen
class Fact:
    """One `key=value` of an expect line."""

    key: str
    value: Any
    span: Span


class Network(Structure):
    """Runs a net's body, and keeps what its own statements say.

    sizes  shapes given from outside for inputs, by name
    """

    def __init__(self, faults: Faults, sizes: Mapping[str, Shape]) -> None:
        super().__init__(faults)
        self.sizes = sizes
        self.inputs: list[InputSpec] = []
        self.declared = 0  # input nodes
        self.outputs: list[OutputSpec] = []
        self.named: set[str] = set()  # names of outputs
        self.facts: list[Fact] = []
        self.weights: WeightsSpec | None = None
        self.labels: Path | None = None
        self.default_sizes = True  # whether every input has the size written (or the default one)
        self.handlers |= {
            tree.InputLine: self.input, tree.OutputLine: self.output, tree.Expect: self.expect,
            tree.WeightsLine: self.weights_line,
        }  # fmt: skip

    def only_in_net(self, word: str, span: Span, scope: Scope) -> None:
        if scope.in_block:
            raise Fault("only-in-net", f"`{word}` belongs in the net, not in a block", span)

    # ---- inputs

    def input(self, line: tree.InputLine, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        self.only_in_net("input", line.span, scope)
        name = line.name
        if name in scope.tensors:
            raise Fault("duplicate-label", f"`{name}` labels something else already", line.head)
        scope.tensors[name] = POISON
        first = not self.nodes
        if len(self.nodes) > self.declared:
            raise Fault("input-order", "inputs come before the first layer", line.span)
        made = self.declare(line, scope)
        scope.tensors[name] = made
        return made if first else x

    def declare(self, line: tree.InputLine, scope: Scope) -> Tensor:
        """A new input node with its InputSpec."""
        names = scope.names(POISON)
        bound, faults = bind("input", line.arguments, ["size"], ["size", *preprocess.OPTIONS])
        size = bound.pop("size", None)
        if size is None:
            raise Fault("missing-argument", "input needs a size", line.span, "for example `input image 3x224x224`")
        written = self.written_size(size.value, scope)
        options = preprocess.values(bound, names, faults)
        made = TensorType(self.given_size(line.name, written))
        if made.elements > MAX_ELEMENTS:
            message = f"the input would be {made}, {made.elements:,} values; the limit is {MAX_ELEMENTS:,}"
            raise Fault("too-large", message, size.span)
        if options is not None:
            labels = options.pop("labels")
            ready = preprocess.build(options, made, written, bound, faults)
            self.labels = self.label_file(labels, bound, scope) if labels is not None else self.labels
            free = (written[1] is None, written[2] is None) if len(written) == 3 else (False, False)
            self.inputs.append(InputSpec(line.name, len(self.nodes), made, ready, free))
        for fault in faults:
            self.faults.note(fault, scope.chain)
        tensor = Tensor(len(self.nodes), made)
        self.declared += 1
        self.nodes.append(Node(line.name, Input(made), (), made, span=line.span))
        return tensor

    def written_size(self, size: tree.Expression, scope: Scope) -> tuple[int | None, ...]:
        """The size as written: (C, H, W) with None for a free side, or (F,)."""
        parts = size.parts if isinstance(size, tree.Size) else evaluate(size, scope.names(POISON))
        parts = (parts,) if type(parts) is int else parts
        good = isinstance(parts, tuple) and len(parts) in (1, 3) and parts[0] is not None
        if not good or not all(p is None or (type(p) is int and p > 0) for p in parts):
            shown = "x".join("?" if p is None else show(p) for p in parts) if isinstance(parts, tuple) else show(parts)
            hint = "a map is CxHxW, such as 3x224x224; a vector is one number; H and W may be `?`"
            raise Fault("input-size", f"an input's size is CxHxW or F, found {shown}", size.span, hint)
        return parts

    def given_size(self, name: str, written: tuple[int | None, ...]) -> Shape:
        size = tuple(DEFAULT_SIDE if p is None else p for p in written)
        if name not in self.sizes:
            return size
        given = tuple(self.sizes[name])
        if len(given) != len(size):
            message = f"input {name} has {len(size)} dimensions, found a shape of {len(given)}: {given}"
            raise InputError(message, code="input-shape")
        self.default_sizes = self.default_sizes and given == size
        return given

    def label_file(self, text: str, bound: Mapping[str, tree.Argument], scope: Scope) -> Path | None:
        span = bound["labels"].value.span
        try:
            path = locate(scope.module.folder, text, span, "labels-path")
            if path is None:
                raise Fault("labels-path", f'there is no file "{printable(text)}" beside this one', span)
            return path
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        return None

    # ---- outputs

    def output(self, line: tree.OutputLine, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        try:
            self.only_in_net("output", line.span, scope)
            if line.name in self.named:
                raise Fault("duplicate-output", f"there is another output named `{line.name}`", line.span)
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        self.named.add(line.name)
        self.outputs.append(OutputSpec(line.name, x.node))
        return x

    # ---- facts and weights

    def expect(self, line: tree.Expect, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        for argument in line.arguments:
            try:
                self.only_in_net("expect", line.span, scope)
                if argument.key is None:
                    hint = "for example `expect out=1000 params=11_689_512`"
                    raise Fault("expect", "a fact is written name=value", argument.span, hint)
                value = evaluate(argument.value, scope.names(x))
                self.facts.append(Fact(argument.key, value, argument.span))
            except Fault as fault:
                self.faults.note(fault, scope.chain)
            except Poisoned:
                pass
        return x

    def check_facts(self, graph: Graph) -> None:
        """Compares every expected fact with the finished network; differences are noted."""
        shapes = {o.name: graph.nodes[o.node].type.shape for o in graph.outputs}
        found: dict[str, Any] = {name: shape[0] if len(shape) == 1 else shape for name, shape in shapes.items()}
        found |= {"params": graph.parameters, "macs": graph.macs}
        for fact in self.facts:
            if fact.key not in found:
                hint = did_you_mean(fact.key, lambda: list(found), f"there are {', '.join(found)}")
                self.faults.note(Fault("expect", f"`{fact.key}` is no fact of this network", fact.span, hint))
            elif fact.value != found[fact.key]:
                message = f"expected {fact.key}={_fact(fact.value)}, found {_fact(found[fact.key])}"
                self.faults.note(Fault("expect", message, fact.span))

    def weights_line(self, line: tree.WeightsLine, scope: Scope, x: Tensor, label: str | None) -> Tensor:
        try:
            self.only_in_net("weights", line.span, scope)
            if self.weights is not None:
                raise Fault("weights", "the net says twice where its weights come from", line.span)
            self.weights = self.weights_spec(line, scope)
        except Fault as fault:
            self.faults.note(fault, scope.chain)
        except Poisoned:
            pass
        return x

    def weights_spec(self, line: tree.WeightsLine, scope: Scope) -> WeightsSpec:
        bound, faults = bind("weights", line.arguments, ["file"], ["file", "sha256"])
        if faults:
            raise faults[0]
        values = {k: evaluate(a.value, scope.names(POISON)) for k, a in bound.items()}
        text, digits = values.get("file"), values.get("sha256")
        if type(text) is not str:
            hint = 'write `weights "file.safetensors"` or `weights "https://…" sha256="…"`'
            raise Fault("weights", "weights needs the quoted name of a file, or a URL", line.span, hint)
        if digits is not None and (type(digits) is not str or not _is_digest(digits)):
            message = f"sha256 is 8 to 64 hexadecimal digits in quotes, found {show(digits)}"
            raise Fault("weights", message, bound["sha256"].span)
        at = bound["file"].span
        if "://" in text:
            return self.remote(text, digits, at, line.span)
        if text.startswith("package:"):  # in an installed package: netdsl.weights knows which may be looked into
            return WeightsSpec(path=text, sha256=digits and digits.lower(), span=line.span)
        path = locate(scope.module.folder, text, at, "weights-path")
        path = path or (scope.module.folder or folder()).resolve() / text
        return WeightsSpec(path=str(path), sha256=digits and digits.lower(), span=line.span)

    def remote(self, url: str, digits: str | None, at: Span, span: Span) -> WeightsSpec:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            host, parts = "", urlsplit("")
        local = host in ("localhost", "127.0.0.1", "::1")
        if not host or not (parts.scheme == "https" or (parts.scheme == "http" and local)) or not _plain(url):
            raise Fault("weights", f'"{printable(url)}" is no https:// address', at)
        if digits is None:
            hint = 'add sha256="…": the digest of the file, or at least its first 8 digits'
            raise Fault("weights", "weights from an address need a sha256", span, hint)
        return WeightsSpec(url=url, sha256=digits.lower(), span=span)


def _plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and " " not in url


def _is_digest(digits: str) -> bool:
    return 8 <= len(digits) <= 64 and all(c in "0123456789abcdefABCDEF" for c in digits)


def _fact(value: Any) -> str:
    return f"{value:_}" if type(value) is int else show(value)
