"""Layer words as operators, without a text."""

from netdsl.ops import LAYERS
from netdsl.ops.base import Op
from netdsl.tensor import TensorType


def make(word: str, x: TensorType, **given: object) -> Op:
    """The operator of a one-part layer word, as the language makes it."""
    layer = LAYERS[word]
    values = {name: option.default for name, option in layer.arguments.items()}
    values |= {name: layer.arguments[name].kind.convert(value) for name, value in given.items()}
    ((_, part),) = layer.parts
    return part(x, **values)
