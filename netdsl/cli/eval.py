"""`netdsl eval`: how often a classifier is right on labelled data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdsl.cli import console, options
from netdsl.errors import InputError

if TYPE_CHECKING:
    from netdsl.graph.ir import Graph


@click.command("eval")
@options.network
@click.option(
    "--data",
    required=True,
    metavar="D",
    type=click.Path(path_type=Path),
    help="Pictures in class folders, MNIST or CIFAR files, or an .npz of images and labels.",
)
@options.weights
@options.device
@options.precision
@options.threads
@click.option("--batch", type=click.IntRange(1, 65536), default=16, show_default=True, help="Images at a time.")
@click.option("--limit", type=click.IntRange(1), help="Take only the first images.")
@options.settings
@options.seed
@options.as_json
def command(
    net: str, data: Path, weights: str | None, device: str, precision: str, threads: int | None, batch: int,
    limit: int | None, settings: dict[str, Any], seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Measure the accuracy of NET on labelled data: how often the right class comes first, and among the first five."""
    from netdsl.answers import Score, read_labels
    from netdsl.datasets import open_dataset
    from netdsl.graph.build import build

    graph = build(net, params=settings)
    classes = _classes(graph)
    images = open_dataset(data, graph.inputs[0], classes, read_labels(graph, classes))
    model = options.compile_graph(graph, weights, device, threads, seed, precision=precision)
    score, total = Score(), min(limit or len(images), len(images))
    started = time.perf_counter()
    with console.progress() as report:
        for inputs, right in images.batches(batch, limit):
            report(f"{graph.name} on {images.name}", score.images, total)
            score.add(model(inputs), right)
    seconds = time.perf_counter() - started
    if as_json:
        told = {"network": graph.name, "weights": model.weights_description, "random_weights": model.random_weights,
                "device": model.device, "threads": model.threads, "precision": model.precision, "data": images.name,
                "seconds": seconds}  # fmt: skip
        console.print_json(told | score.as_dict())
        return
    warning = f": {options.meaningless(graph)}" if model.random_weights else ""
    click.echo(f"network  {graph.name}, with {model.weights_description}{warning}")
    click.echo(f"data     {images.name}, {score.images:,} images in {seconds:.1f} s")
    click.echo(f"top-1    {score.top1:.2%}")
    if classes > 5:
        click.echo(f"top-5    {score.top5:.2%}")


def _classes(graph: Graph) -> int:
    """How many classes the network tells apart."""
    from netdsl.answers import is_classifier

    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or not is_classifier(graph, graph.outputs[0]):
        message = f"{graph.name} is no classifier with one input and one output, so it has no accuracy"
        raise InputError(message, code="no-classifier", hint="use netdsl run")
    return graph.nodes[graph.outputs[0].node].type.channels
