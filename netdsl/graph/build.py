"""From a text to the typed graph: parse, run the net's statements, check what they gave."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netdsl.errors import Diagnostic, InputError, SourceError, nearest
from netdsl.graph.faults import Fault, Faults, GaveUp, Poisoned
from netdsl.graph.ir import Graph, OutputSpec
from netdsl.graph.library import Loader, Module, origin
from netdsl.graph.network import Network
from netdsl.graph.scope import POISON, Scope
from netdsl.graph.values import UNKNOWN, evaluate
from netdsl.graph.verify import verify
from netdsl.ops.base import Input, Word
from netdsl.tensor import Shape
from netdsl.text import tree
from netdsl.text.tree import MAX_INTEGER


def build(
    source: str | Path,
    *,
    params: Mapping[str, Any] | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The graph of a network, every shape inferred and every stated fact checked.

    source        a path, the bare name of a network that ships, or the text itself (with a line break in it)
    params        values for the net's parameters: numbers, flags, words, tuples
    input_shapes  (C, H, W) or (F,) by input name, instead of what is written; free sides (`?`) are 256 otherwise

    `expect` is checked when parameters and input shapes are the written ones.
    Errors: SourceError with every fault of the text and of what it uses; InputError for a wrong source, parameter or
    shape.
    """
    graph, module = _build(source, _mapping("params", params), _mapping("input_shapes", input_shapes))
    if graph is None:
        raise SourceError([_no_net(module, "the text defines blocks, but no net")])
    verify(graph)
    return graph


def check(source: str | Path) -> Graph | None:
    """The graph with default parameters, or None for a text that has only blocks. Raises like `build`."""
    return _build(source, {}, {})[0]


def _build(source: str | Path, params: Mapping[str, Any], shapes: Mapping[str, Any]) -> tuple[Graph | None, Module]:
    faults = Faults()
    at = origin(source)
    network = Network(faults, {name: _shape(name, shape) for name, shape in shapes.items()})
    graph = None
    try:
        module = Loader(faults).load(at)
        net = _the_net(module, faults)
        if net is not None:
            graph = _run(network, module, net, params)
        _run_uncalled(network, module)
    except GaveUp:
        pass
    except RecursionError:  # only where the caller stands deep already: the limits keep within a third of Python's
        raise InputError("the network is nested too deep to be built from here", code="nesting") from None
    faults.check(at.source.name)
    return graph, module


def _the_net(module: Module, faults: Faults) -> tree.Net | None:
    nets = module.file.nets
    for extra in nets[1:]:
        message = f"there is a net already, `{nets[0].name}`: a text has one"
        faults.note(Fault("second-net", message, extra.span))
    if not nets and not module.blocks and not faults:
        faults.add(_no_net(module, "the text defines no net"))
    return nets[0] if nets else None


def _no_net(module: Module, message: str) -> Diagnostic:
    return Diagnostic("no-net", message, module.file.span, "write `net name { … }`")


def _run(network: Network, module: Module, net: tree.Net, params: Mapping[str, Any]) -> Graph | None:
    """Runs the net; None when faults were found."""
    scope = Scope(module)
    defaults = _defaults(net, scope, network.faults)
    given = _given(net, params, defaults)
    scope.variables |= given
    x = network.run(net.body, scope, POISON)
    _check_inputs(network, net)
    if not network.outputs:
        network.outputs.append(OutputSpec("out", x.node))
    if network.faults:
        return None
    _check_use(network, net)
    graph = Graph(
        net.name, tuple(network.nodes), tuple(network.inputs), tuple(network.outputs), module.source,
        defaults | given, network.weights, str(network.labels) if network.labels else None,
    )  # fmt: skip
    if network.default_sizes and not network.faults and all(defaults[name] == v for name, v in given.items()):
        network.check_facts(graph)
    return graph


def _defaults(net: tree.Net, scope: Scope, faults: Faults) -> dict[str, Any]:
    """Default values of the net's parameters; each may use those before it."""
    for parameter in net.parameters:
        try:
            if parameter.default is None:
                hint = f"write `{parameter.name}=value`: a net can then be run as it is"
                raise Fault(
                    "missing-default", f"a net's parameter `{parameter.name}` needs a default", parameter.span, hint
                )
            scope.variables[parameter.name] = evaluate(parameter.default, scope.names(POISON))
        except Poisoned:
            scope.variables[parameter.name] = UNKNOWN
        except Fault as fault:
            scope.variables[parameter.name] = UNKNOWN
            faults.note(fault)
    return dict(scope.variables)


def _mapping(what: str, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if given is None or isinstance(given, Mapping):
        return given or {}
    message = f"{what} must be a mapping from names to values, found a {type(given).__name__}"
    raise InputError(message, code="no-mapping")


def _given(net: tree.Net, params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from outside as values of the language. Errors: InputError.

    A string is a word, but where the default is a quoted string.
    """
    known = [p.name for p in net.parameters]
    for name in params:
        if name not in known:
            near = nearest(str(name), known)
            hint = f"did you mean `{near}`?" if near else f"it has {', '.join(known) or 'none'}"
            raise InputError(f"{net.name} has no parameter `{name}`", code="unknown-parameter", hint=hint)
    return {n: _value(n, value, str if type(defaults[n]) is str else Word) for n, value in params.items()}


def _value(name: str, value: Any, text: type[str]) -> Any:
    if isinstance(value, bool | Word):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list | tuple):
        return tuple(_value(name, v, text) for v in value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        if not math.isfinite(value):
            raise InputError(f"parameter {name} must be finite, found {value}", code="bad-parameter")
        return float(value)
    try:
        number = operator.index(value)
    except TypeError:
        message = f"parameter {name} must be a number, flag, word or tuple, found {type(value).__name__}"
        raise InputError(message, code="bad-parameter") from None
    if abs(number) > MAX_INTEGER:
        raise InputError(f"parameter {name} is too large: whole numbers end at 2^63 - 1", code="bad-parameter")
    return number


def _shape(name: str, shape: Any) -> Shape:
    """A shape from outside. Errors: InputError."""
    try:
        sizes = tuple(operator.index(s) for s in shape)
    except TypeError:
        sizes = (0,)
    if not all(0 < s <= MAX_INTEGER for s in sizes):
        raise InputError(f"the shape of input {name} must be positive whole numbers, found {shape}", code="input-shape")
    return sizes


def _check_inputs(network: Network, net: tree.Net) -> None:
    declared = [i.name for i in network.inputs]
    if not declared and not network.faults:
        hint = "write `input image 3x224x224` as the first line of the net"
        network.faults.note(Fault("no-input", f"net {net.name} has no input", net.span, hint))
    for name in network.sizes:
        if name not in declared and not network.faults:
            raise InputError(
                f"{net.name} has no input `{name}`", code="input-shape", hint=f"it has {', '.join(declared)}"
            )


def _check_use(network: Network, net: tree.Net) -> None:
    """Notes every layer and input that no output depends on."""
    nodes = network.nodes
    if all(isinstance(n.op, Input) for n in nodes):
        network.faults.note(Fault("empty-net", f"net {net.name} has no layers", net.span))
        return
    used = {o.node for o in network.outputs}
    consumed: set[int] = set()
    for i in reversed(range(len(nodes))):
        consumed |= {*nodes[i].inputs}
        used |= {*nodes[i].inputs} if i in used else set()
    for i, node in enumerate(nodes):
        if i in used or i in consumed:
            continue
        message, hint = f"the result of `{node.path}` ({node.op.name}) is never used", "write `output name` behind it"
        if isinstance(node.op, Input):
            message, hint = f"the input `{node.path}` is never used", f"`from {node.path}` goes on from it"
        network.faults.note(Fault("unused", message, node.span or net.span, f"{hint}, or remove it"))


def _run_uncalled(network: Network, module: Module) -> None:
    """Checks blocks that nothing called, as far as that goes without arguments and shapes."""
    network.steps = 0
    for found in module.blocks.values():
        if found is None or found.module is not module or id(found.block) in network.called:
            continue
        scope = Scope(module, in_block=True, incomplete=True)
        scope.variables = {p.name: UNKNOWN for p in found.block.parameters}
        network.run_block(found.block, scope, POISON)
