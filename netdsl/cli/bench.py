"""`netdsl bench`: how fast networks run beside other engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdsl.cli import console, options

if TYPE_CHECKING:
    from netdsl.benchmark import Comparison, Rules
    from netdsl.peers import Peer


def _words(context: click.Context, option: click.Parameter, text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _sizes(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    words = _words(context, option, text) or []
    if not words or not all(word.isdecimal() and 1 <= int(word) <= 4096 for word in words):
        raise click.BadParameter(f"{text!r} is not a list of whole numbers from 1 to 4096, as in 1,8", context, option)
    return list(dict.fromkeys(map(int, words)))


def _devices(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    words = _words(context, option, text)
    if not words:
        raise click.BadParameter("name a device, as in cpu or cpu,cuda", context, option)
    return words


@click.command("bench")
@click.argument("nets", metavar="NET…", nargs=-1, required=True)
@click.option("--device", "devices", default="cpu", show_default=True, callback=_devices,
              help="A device; or several, as in cpu,cuda, to be compared with one another.")  # fmt: skip
@click.option("--peers", metavar="NAMES", callback=_words,
              help="Engines to compare with: onnxruntime,openvino,ncnn,torch (default: those installed).")  # fmt: skip
@click.option("--batch", "batches", default="1", show_default=True, callback=_sizes, help="Batch sizes, as in 1,8.")
@options.precision
@options.threads
@click.option("--rounds", type=click.IntRange(1, 100_000), default=30, show_default=True, help="Turns of each engine.")
@options.settings
@options.seed
@options.new_file("--plot", "FILE.svg", "Draw the speed ratios; of several devices, their times as the batch grows.")
@options.as_json
def command(
    nets: tuple[str, ...], devices: list[str], peers: list[str] | None, batches: list[int], precision: str,
    threads: int | None, rounds: int, settings: dict[str, Any], seed: int, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Time each NET beside other engines, with the same random weights, input and threads, in float32.

    With --precision netdsl runs in less, the others still in float32, and answers may differ by 1 % of the largest.
    Answers are compared before anything is timed. The engines take turns; the figures are medians of all turns. A ratio
    above 1 says how many times faster netdsl is than the fastest peer. Ends with status 1 if an answer differs.

    Several devices are compared with the first of them instead: times of a call from and to the host's memory, on a GPU
    the parts of it, and where one device overtakes another as the batch grows.
    """
    from netdsl.benchmark import Rules
    from netdsl.model import choose_device

    chosen = list(dict.fromkeys(map(choose_device, devices)))
    rules = Rules(threads, rounds, seed=seed, precision=precision)
    if len(chosen) == 1:
        wrong = _beside_peers(nets, chosen[0], peers, batches, rules, settings, plot, as_json)
    elif peers:
        raise click.UsageError("--peers are compared with one device at a time, and several are named")
    elif precision != "float32":
        raise click.UsageError("--precision is for one device at a time, and several are named")
    else:
        wrong = _beside_each_other(nets, chosen, batches, rules, settings, plot, as_json)
    click.get_current_context().exit(int(wrong))


def _beside_peers(
    nets: tuple[str, ...], device: str, peers: list[str] | None, batches: list[int], rules: Rules,
    settings: dict[str, Any], plot: Path | None, as_json: bool,
) -> bool:  # fmt: skip
    """Compare one device with other engines; whether any answer differs."""
    from netdsl.benchmark import benchmark, facts
    from netdsl.peers import choose, installed

    engines = installed() if peers is None else choose(peers)
    with console.progress() as report:
        found = list(benchmark(nets, engines, batches, device, rules, settings, report))
    told = facts(engines)
    if plot is not None:
        from netdsl.plots import plot_of_comparisons

        plot.write_text(plot_of_comparisons(found, engines, told), encoding="utf-8")
    if as_json:
        console.print_json({"machine": told, "rounds": rules.rounds, "results": [c.as_dict() for c in found]})
    else:
        _print(found, engines, told, rules.rounds)
        if plot is not None:
            click.echo(f"written to {plot}")
    return any(o.wrong for c in found for o in c.outcomes)


def _beside_each_other(
    nets: tuple[str, ...], devices: list[str], batches: list[int], rules: Rules, settings: dict[str, Any],
    plot: Path | None, as_json: bool,
) -> bool:  # fmt: skip
    """Compare devices; whether any answer differs."""
    from netdsl import lowerings

    with console.progress() as report:
        found = list(lowerings.side_by_side(nets, devices, batches, rules, settings, report))
    told = lowerings.facts(devices)
    if plot is not None:
        from netdsl.plots import crossover_plot

        plot.write_text(crossover_plot(found, f"{told['processor']}, {told['date']}"), encoding="utf-8")
    if as_json:
        console.print_json({"machine": told, "rounds": rules.rounds, "side_by_side": [f.as_dict() for f in found]})
        return any(f.wrong for f in found)
    console.print_table(lowerings.HEADINGS, [row for f in found for row in lowerings.cells(f)], lowerings.RIGHT)
    for line in (line for f in found for line in lowerings.remarks(f)):
        click.echo(line)
    for device, name in found[0].devices.items():
        threads = f", {found[0].threads} thread{'s' * (found[0].threads > 1)}" if device == "cpu" else ""
        click.echo(f"{device}: {told['processor'] + threads if device == 'cpu' else name}")
    click.echo(f"medians of {rules.rounds} turns, float32; netdsl {told['versions']['netdsl']}")
    if plot is not None:
        click.echo(f"written to {plot}")
    return any(f.wrong for f in found)


def _print(found: list[Comparison], engines: tuple[Peer, ...], told: dict[str, Any], rounds: int) -> None:
    from netdsl.benchmark import cells, geometric_means, headings, remarks

    names = [peer.name for peer in engines]
    columns = headings(names)
    console.print_table(
        columns, [cells(c, names) for c in found], numbers=[*range(1, 3 + len(names)), len(columns) - 1]
    )
    if len(found) > 1:
        for batch, mean in geometric_means(found).items():
            click.echo(f"batch {batch}: geometric mean of the ratios {mean:.2f}")
    for remark in remarks(found):
        click.echo(remark)
    versions = ", ".join(f"{name} {told['versions'][name]}" for name in ("netdsl", *names))
    threads = f"{found[0].threads} thread{'s' * (found[0].threads > 1)}"
    click.echo(f"medians of {rounds} turns, {threads}, {found[0].precisions}, {told['processor']}; {versions}")
