"""The options of an input line: what is done to a picture before it enters the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netdsl.graph.calls import convert
from netdsl.graph.faults import Fault, Poisoned
from netdsl.graph.ir import Preprocess
from netdsl.graph.values import Names
from netdsl.ops.base import COUNT, FLAG, NUMBER, SIZE, Kind, Option, choice
from netdsl.tensor import TensorType
from netdsl.text import tree


def _resize(value: Any) -> int | tuple[int, int]:
    return SIZE.convert(value) if isinstance(value, tuple) else COUNT.convert(value)  # type: ignore[no-any-return]


def _numbers(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,)
    if not values:
        raise ValueError
    return tuple(NUMBER.convert(v) for v in values)


def _range(value: Any) -> tuple[float, float]:
    black, white = _numbers(value)
    if black == white:
        raise ValueError
    return black, white


def _deviations(value: Any) -> tuple[float, ...]:
    values = _numbers(value)
    if any(v <= 0 for v in values):
        raise ValueError
    return values


def _quoted(value: Any) -> str:
    if type(value) is not str:
        raise ValueError
    return value


_DEFAULT = Preprocess()

OPTIONS = {
    option.name: option
    for option in (
        Option("resize", Kind("the shorter side in pixels, or a size HxW", _resize), None,
               "the picture's shorter side, or its exact height and width, after resizing"),
        Option("crop", SIZE, None, "the part around the centre that is kept"),
        Option("range", Kind("two different numbers (black, white)", _range), _DEFAULT.range,
               "what black and white become, before mean and std"),
        Option("mean", Kind("a number, or one for each channel", _numbers), _DEFAULT.mean, "subtracted"),
        Option("std", Kind("a number above 0, or one for each channel", _deviations), _DEFAULT.std, "divided by, last"),
        Option("order", choice("rgb", "bgr"), _DEFAULT.order, "order of the channels"),
        Option("grey", FLAG, None, "one channel, of the brightness; what an input of one channel means"),
        Option("interpolation", choice("nearest", "bilinear", "bicubic", "lanczos"), _DEFAULT.interpolation,
               "used by resize"),
        Option("labels", Kind('a file name in quotes, such as "labels.txt"', _quoted), None,
               "a text file with the name of one class a line"),
    )
}  # fmt: skip


def values(bound: Mapping[str, tree.Argument], names: Names, faults: list[Fault]) -> dict[str, Any] | None:
    """The value of every option; None, with faults added, when one is wrong."""
    found = {name: option.default for name, option in OPTIONS.items()}
    good = True
    for name, argument in bound.items():
        try:
            found[name] = convert("input", OPTIONS[name], argument.value, names)
        except Fault as fault:
            faults.append(fault)
            good = False
        except Poisoned:
            good = False
    return found if good else None


def build(
    options: Mapping[str, Any], size: TensorType, written: tuple[int | None, ...], bound: Mapping[str, tree.Argument],
    faults: list[Fault],
) -> Preprocess:  # fmt: skip
    """The Preprocess of an input of the given size; faults are added where options do not suit it.

    written  the size as written, None for free sides
    """
    pictures = {k: v for k, v in options.items() if k != "grey"}
    if bound.keys() - {"labels", "size"} and not size.is_map:
        first = next(a for k, a in bound.items() if k != "labels")
        faults.append(Fault("input-option", f"only maps are pictures; this input is a vector of {size}", first.span))
    for name in ("mean", "std"):
        if len(options[name]) not in (0, 1, size.channels):
            message = f"{name} has {len(options[name])} numbers for {size.channels} channels"
            faults.append(Fault("input-option", message, bound[name].span))
    if options["grey"] is not None and options["grey"] != (size.channels == 1):
        message = f"grey={'yes' if options['grey'] else 'no'} does not suit an input of {size.channels} channels"
        faults.append(Fault("input-option", message, bound["grey"].span, "a grey picture has one channel"))
    if options["order"] == "bgr" and size.channels != 3:
        message = f"order=bgr needs 3 channels, found {size.channels}"
        faults.append(Fault("input-option", message, bound["order"].span))
    crop = options["crop"]
    if crop is not None and size.is_map and None not in written and crop != written[1:]:
        message = f"crop={crop[0]}x{crop[1]} does not give the input's {written[1]}x{written[2]}"
        faults.append(Fault("input-option", message, bound["crop"].span))
    return Preprocess(**pictures)
