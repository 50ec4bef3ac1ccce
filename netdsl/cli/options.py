"""Arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdsl.cli import console
from netdsl.errors import InputError

if TYPE_CHECKING:
    from netdsl.graph.ir import Graph
    from netdsl.model import Model

network = click.argument("net", metavar="NET")
weights = click.option(
    "--weights", metavar="FILE", help="A .safetensors, .npz or PyTorch file; 'pretrained'; or 'random'."
)
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "reference"]), default="auto", show_default=True,
    help="Where to run; auto takes an NVIDIA GPU that can be used, else the CPU.",
)  # fmt: skip
precision = click.option(
    "--precision", type=click.Choice(["float32", "tf32", "float16", "bfloat16", "f16", "bf16"]), default="float32",
    show_default=True, help="On the CPU: 16-bit weights for layers that wait for memory. On a GPU: tensor cores.",
)  # fmt: skip
threads = click.option("--threads", type=click.IntRange(1, 1024), help="Threads to use (default: all processors).")
seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random weights.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _in_a_folder(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():  # said before the work rather than after it
        raise InputError("there is no such folder", code="cannot-write", path=str(path.parent))
    return path


def new_file(name: str, metavar: str, text: str) -> Callable[[Any], Any]:
    """An option that names a file to write."""
    kind = click.Path(dir_okay=False, path_type=Path)
    return click.option(name, metavar=metavar, type=kind, callback=_in_a_folder, help=text)


def parse_value(text: str) -> Any:
    """The value that a text stands for in a .net file: a whole number, a number, yes or no, a size (3x5), a word."""
    if text in ("yes", "true", "no", "false"):
        return text in ("yes", "true")
    sizes = text.split("x")
    if len(sizes) > 1 and all(part.isdecimal() for part in sizes):
        return tuple(map(int, sizes))
    if text.lstrip("+-.")[:1].isdecimal():
        for kind in (int, float):
            with suppress(ValueError):
                return kind(text)
    return text


def _parse_settings(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    values = {}
    for setting in given:
        name, equals, text = setting.partition("=")
        if not equals or not name.strip().isidentifier():
            raise click.BadParameter(f"{setting!r} is not of the form name=value", context, option)
        values[name.strip()] = parse_value(text.strip())
    return values


settings = click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_parse_settings,
    help="Set a parameter of the network, as in --set classes=10; may be repeated.",
)


def meaningless(graph: Graph) -> str:
    """What is said of random weights, and the ways to give real ones."""
    published = " or --weights pretrained" if graph.weights else ""
    return f"the answer means nothing; give real ones with --weights FILE{published}"


def compile_graph(
    graph: Graph, weights: str | None, device: str, threads: int | None, seed: int, images: int = 1,
    precision: str = "float32",
) -> Model:  # fmt: skip
    """`netdsl.compile` for a batch of so many images, with its progress and warnings shown, and weights not in float32.

    The commands say themselves when weights are random.
    """
    import warnings

    from netdsl.compiler import compile
    from netdsl.errors import NetWarning

    with warnings.catch_warnings(record=True) as caught, console.progress() as report:
        warnings.simplefilter("always", NetWarning)
        model = compile(graph, weights, device, threads, seed=seed, precision=precision, progress=report)
        model.prepare(images, report)
    for warning in caught:
        if "answers mean nothing" not in str(warning.message):
            click.echo(f"warning: {warning.message}", err=True)
    if model.storage is not None:
        click.echo(f"note: {model.storage}", err=True)
    return model
