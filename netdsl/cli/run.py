"""`netdsl run`: compile a network and run it once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdsl.cli import console, options
from netdsl.errors import InputError

if TYPE_CHECKING:
    from netdsl.answers import Answer
    from netdsl.graph.ir import Graph
    from netdsl.model import Model
    from netdsl.ops.base import Array

    Answers = dict[str, list[list[Answer]]]  # by output name: for each image, its most probable classes


@click.command("run")
@options.network
@click.option(
    "--input",
    "files",
    metavar="FILE",
    multiple=True,
    help="A picture, .npy or .npz; for several inputs in order, or as NAME=FILE.",
)
@options.weights
@options.device
@options.precision
@options.threads
@click.option("--batch", type=click.IntRange(1, 65536), help="Repeat the input until the batch has this size.")
@options.settings
@options.seed
@click.option("--top", "count", type=click.IntRange(1), default=5, show_default=True, help="Classes to print.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the output: .npy, .npz, or a picture file where it is a picture.",
)
@options.as_json
def command(
    net: str, files: tuple[str, ...], weights: str | None, device: str, precision: str, threads: int | None,
    batch: int | None, settings: dict[str, Any], seed: int, count: int, output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Compile NET, run it once, and print what ran, with which weights, and the answer.

    Without --input it runs on a sample that ships. Without weights, random ones are used, and the output says so.
    """
    from netdsl.arrays import check_shape
    from netdsl.graph.build import build

    graph = build(net, params=settings)
    if output is not None:
        _check_writable(output, graph)
    inputs, told = _inputs(graph, files, batch)
    for spec, array in zip(graph.inputs, inputs, strict=True):
        check_shape(array.shape, spec)
    sizes = {s.name: a.shape[1:] for s, a in zip(graph.inputs, inputs, strict=True) if any(s.free)}
    if sizes:
        graph = build(net, params=settings, input_shapes=sizes)
    started = time.perf_counter()
    model = options.compile_graph(graph, weights, device, threads, seed, len(inputs[0]), precision)
    compiled = time.perf_counter()
    result = model(*inputs)
    ran = time.perf_counter()
    outputs = result if isinstance(result, dict) else {model.outputs[0].name: result}
    if output is not None:
        _write(output, outputs, model.graph)
    answers = _answers(model.graph, outputs, count)
    if as_json:
        times = {"compile_seconds": compiled - started, "run_seconds": ran - compiled}
        console.print_json(_report(model, inputs, told, outputs, answers) | times)
        return
    _print_setting(
        model, inputs, told, f"compiled in {_seconds(compiled - started)}, ran in {_seconds(ran - compiled)}"
    )
    for name, values in outputs.items():
        click.echo()
        _print_output(name, values, answers.get(name), output, several=len(outputs) > 1)
    if output is not None:
        click.echo(f"\nwritten to {output}")


def _inputs(graph: Graph, files: tuple[str, ...], batch: int | None) -> tuple[list[Array], list[str]]:
    """The arrays to run on, one per input, and where each comes from."""
    import numpy as np

    from netdsl.samples import read_input, sample_input

    names = [spec.name for spec in graph.inputs]
    given: dict[str, str] = {}
    for file in files:
        name, equals, path = file.partition("=")
        if not (equals and name in names):
            name, path = next((n for n in names if n not in given), ""), file
        if not name or name in given:
            message = f"{graph.name} takes {len(names)} input{'s' * (len(names) > 1)} ({', '.join(names)})"
            raise InputError(f"{message}, found {len(files)}", code="input-count")
        given[name] = path
    arrays, told = [], []
    for spec in graph.inputs:
        if spec.name in given:
            array, source = read_input(given[spec.name], spec), given[spec.name]
        else:
            array, source = sample_input(spec)
        if batch and len(array):
            array = array[np.arange(batch) % len(array)]
        arrays.append(array)
        told.append(source)
    return arrays, told


def _check_writable(path: Path, graph: Graph) -> None:
    """Fail before the work rather than after it."""
    from netdsl.images import SUFFIXES

    known = (".npy", ".npz", *SUFFIXES)
    if path.suffix.lower() not in known:
        raise InputError(f"cannot tell a format from the suffix {path.suffix!r}", code="bad-suffix", path=str(path),
                         hint=f"use one of {' '.join(known)}")  # fmt: skip
    if not path.parent.is_dir():
        raise InputError("there is no such folder", code="cannot-write", path=str(path.parent))
    names = [spec.name for spec in graph.outputs]
    if path.suffix.lower() != ".npz" and len(names) > 1:
        message = f"{graph.name} has {len(names)} outputs ({', '.join(names)}); {path.suffix} holds one"
        raise InputError(message, code="several-outputs", path=str(path), hint="write to an .npz file")


def _write(path: Path, outputs: dict[str, Array], graph: Graph) -> None:
    import numpy as np

    from netdsl.answers import picture_values
    from netdsl.images import write_image

    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            np.savez(path, **outputs)  # type: ignore[arg-type]
        elif suffix == ".npy":
            np.save(path, next(iter(outputs.values())))
        else:
            write_image(path, next(iter(outputs.values())), picture_values(graph, graph.outputs[0]))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"the output cannot be written: {reason}", code="cannot-write", path=str(path)) from None


def _answers(graph: Graph, outputs: dict[str, Array], count: int) -> Answers:
    """For each output that is a classifier's, the most probable classes of each image."""
    from netdsl.answers import is_classifier, probabilities, read_labels, top

    found = {}
    for spec in graph.outputs:
        if is_classifier(graph, spec):
            chances = probabilities(graph, spec, outputs[spec.name])
            labels = read_labels(graph, chances.shape[1])
            found[spec.name] = [top(row, count, labels) for row in chances]
    return found


def _report(
    model: Model, inputs: list[Array], told: list[str], outputs: dict[str, Array], answers: Answers
) -> dict[str, Any]:  # fmt: skip
    """The run as --json prints it."""
    from dataclasses import asdict

    def described(name: str, values: Array) -> dict[str, Any]:
        record: dict[str, Any] = {"name": name, "shape": list(values.shape)}
        if name in answers:
            return record | {"answers": [[asdict(a) for a in image] for image in answers[name]]}
        return record | dict(zip(("min", "max", "mean"), _spread(values), strict=True))

    graph = model.graph
    return {
        "network": graph.name, "parameters": graph.parameters, "macs": graph.macs,
        "weights": model.weights_description, "random_weights": model.random_weights,
        "device": model.device, "device_name": model.device_name, "threads": model.threads,
        "precision": model.precision, "weights_kept": model.storage and asdict(model.storage),
        "inputs": [{"name": s.name, "shape": list(a.shape), "source": t}
                   for s, a, t in zip(graph.inputs, inputs, told, strict=True)],
        "outputs": [described(name, values) for name, values in outputs.items()],
    }  # fmt: skip


def _print_setting(model: Model, inputs: list[Array], told: list[str], times: str) -> None:
    graph = model.graph
    weights = model.weights_description if graph.tensors else "none needed"
    rows = [
        ("network", f"{graph.name}: {graph.parameters:,} parameters, {graph.macs:,} multiply-accumulates an image"),
        ("weights", f"{weights}: {options.meaningless(graph)}" if model.random_weights else weights),
        ("device", _device(model)),
    ]
    for spec, array, source in zip(graph.inputs, inputs, told, strict=True):
        rows.append(("input", f"{source} as {spec.name} {list(array.shape)}"))
    for name, text in (*rows, ("time", times)):
        click.echo(f"{name:<9}{text}")


def _device(model: Model) -> str:
    if model.device == "cuda":
        return f"cuda: {model.device_name}, {model.precision}"
    precision = "" if model.precision == "float32" else f", {model.precision}"
    return f"{model.device}, {model.threads} thread{'s' * (model.threads > 1)}{precision}"


def _print_output(
    name: str, values: Array, answers: list[list[Answer]] | None, written: Path | None, several: bool
) -> None:  # fmt: skip
    if answers is None:
        low, high, mean = _spread(values)
        click.echo(f"output {name} {list(values.shape)}: from {low:.4g} to {high:.4g}, mean {mean:.4g}")
        if written is None:
            picture = values.ndim == 4 and values.shape[1] in (1, 3)
            click.echo(f"(write it with --output FILE{'.png, FILE.npy' if picture else '.npy'} or FILE.npz)")
        return
    if several:
        click.echo(f"output {name}")
    if len(answers) == 1:
        console.print_table(("class", "probability"), [(a.name, _percent(a)) for a in answers[0]], numbers=(1,))
    else:
        rows = [(str(i), image[0].name, _percent(image[0])) for i, image in enumerate(answers)]
        console.print_table(("image", "class", "probability"), rows, numbers=(0, 2))


def _spread(values: Array) -> tuple[float, float, float]:
    if not values.size:
        return (float("nan"),) * 3
    return float(values.min()), float(values.max()), float(values.mean())


def _percent(answer: Answer) -> str:
    return f"{answer.probability:.2%}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
