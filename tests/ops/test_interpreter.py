"""The interpreter: weights of every sort, epilogues, several inputs and outputs, values freed when done with."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from netdsl.backends.reference import interpreter, run
from netdsl.errors import Source
from netdsl.graph.ir import Constant, Derived, Graph, InputSpec, Node, OutputSpec, Stored
from netdsl.ops.activation import Relu
from netdsl.ops.base import Input
from netdsl.ops.conv import Conv
from netdsl.ops.dense import Dense
from netdsl.ops.join import Add, Mul
from netdsl.ops.norm import Scale
from netdsl.tensor import TensorType

MAP = TensorType((2, 3, 3))
INPUT = Node("x", Input(MAP), (), MAP)


def graph(*nodes: Node, inputs: tuple[int, ...] = (0,), outputs: tuple[int, ...]) -> Graph:
    specs = tuple(InputSpec(f"x{i}", i, nodes[i].type) for i in inputs)
    return Graph("made", nodes, specs, tuple(OutputSpec(f"y{i}", i) for i in outputs), Source("", ""))


def image(seed: int = 0, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *MAP.shape))


def test_stored_constant_and_derived_weights() -> None:
    weights = {
        "weight": Constant(((2.0,), (3.0,)), (2,)),
        "bias": Derived(lambda a, none: a + 1, (Stored("b", (2,)), None), (2,)),
    }
    x = image()
    (y,) = run(graph(INPUT, Node("s", Scale(), (0,), MAP, weights), outputs=(1,)), {"b": np.array([10.0, 20.0])}, [x])
    assert_allclose(y, x * np.array([2, 3]).reshape(2, 1, 1) + np.array([11, 21]).reshape(2, 1, 1))


def test_epilogues_take_the_extra_inputs_in_order() -> None:
    a, b, c = image(1), image(2), image(3)
    nodes = [Node(name, Input(MAP), (), MAP) for name in "abc"]
    node = Node("j", Add(), (0, 1, 2, 0), MAP, fused=(Relu(), Mul(), Add()))
    (y,) = run(graph(*nodes, node, inputs=(0, 1, 2), outputs=(3,)), {}, [a, b, c])
    assert_allclose(y, np.maximum(a + b, 0) * c + a)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_is_computed_in_the_asked_dtype(dtype: type) -> None:
    node = Node("c", Conv(2, (1, 1), bias=False), (0,), MAP, {"weight": Stored("w", (2, 2, 1, 1))})
    weights = {"w": np.ones((2, 2, 1, 1), np.float32)}
    for batch in (0, 1, 5):
        (y,) = run(graph(INPUT, node, outputs=(1,)), weights, [image(batch=batch)], dtype)
        assert y.dtype == dtype and y.shape == (batch, 2, 3, 3)


def test_several_outputs_one_of_them_an_input_and_one_twice() -> None:
    node = Node("r", Relu(), (0,), MAP)
    later = Node("s", Add(), (1, 1), MAP)
    x = image()
    first, second, third, again = run(graph(INPUT, node, later, outputs=(1, 2, 0, 1)), {}, [x])
    assert_allclose(first, np.maximum(x, 0))
    assert_allclose(second, 2 * first)
    assert_allclose(third, x)
    assert_allclose(again, first)


def test_a_missing_tensor_is_named() -> None:
    node = Node("d", Dense(1, bias=False), (0,), TensorType((1,)), {"weight": Stored("fc.weight", (1, 18))})
    flat = TensorType((18,))
    with pytest.raises(KeyError, match=r"fc\.weight"):
        run(graph(Node("x", Input(flat), (), flat), node, outputs=(1,)), {}, [np.zeros((1, 18))])


def test_values_are_freed_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chain of many, never more than the input and the output of the running node are alive."""
    import weakref

    seen: list[weakref.ref[np.ndarray]] = []
    evaluate = interpreter.evaluate

    def watched(*arguments: object) -> np.ndarray:
        y = evaluate(*arguments)  # type: ignore[arg-type]
        assert sum(ref() is not None for ref in seen) <= 2
        seen.append(weakref.ref(y))
        return y

    monkeypatch.setattr(interpreter, "evaluate", watched)
    chain = [Node(f"r{i}", Relu(), (i,), MAP) for i in range(20)]
    run(graph(INPUT, *chain, outputs=(20,)), {}, [image()])
    assert len(seen) == 20
