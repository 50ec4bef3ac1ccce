"""`netdsl bench`: how fast networks run beside other engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netdsl.cli import console, options

if TYPE_CHECKING:
    from netdsl.benchmark import Comparison
    from netdsl.peers import Peer


def _words(context: click.Context, option: click.Parameter, text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _sizes(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    words = _words(context, option, text) or []
    if not words or not all(word.isdecimal() and 1 <= int(word) <= 4096 for word in words):
        raise click.BadParameter(f"{text!r} is not a list of whole numbers from 1 to 4096, as in 1,8", context, option)
    return list(dict.fromkeys(map(int, words)))


@click.command("bench")
@click.argument("nets", metavar="NET…", nargs=-1, required=True)
@click.option("--device", "devices", default="cpu", show_default=True, callback=_words, help="Devices, as in cpu,cuda.")
@click.option("--peers", metavar="NAMES", callback=_words,
              help="Engines to compare with: onnxruntime,openvino,ncnn,torch (default: those installed).")  # fmt: skip
@click.option("--batch", "batches", default="1", show_default=True, callback=_sizes, help="Batch sizes, as in 1,8.")
@options.precision
@options.threads
@click.option("--rounds", type=click.IntRange(1, 100_000), default=30, show_default=True, help="Turns of each engine.")
@options.settings
@options.seed
@options.new_file("--plot", "FILE.svg", "Draw the speed ratios.")
@options.as_json
def command(
    nets: tuple[str, ...], devices: list[str], peers: list[str] | None, batches: list[int], precision: str,
    threads: int | None, rounds: int, settings: dict[str, Any], seed: int, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Time each NET beside other engines, with the same random weights, input and threads, in float32.

    With --precision netdsl runs in less, the others still in float32, and answers may differ by 1 % of the largest.
    Answers are compared before anything is timed. The engines take turns; the figures are medians of all turns. A ratio
    above 1 says how many times faster netdsl is than the fastest peer. Ends with status 1 if an answer differs.
    """
    from netdsl.benchmark import Rules, benchmark, facts
    from netdsl.model import choose_device
    from netdsl.peers import choose, installed

    for device in devices:
        choose_device(device)
    engines = installed() if peers is None else choose(peers)
    rules = Rules(threads, rounds, seed=seed, precision=precision)
    found: list[Comparison] = []
    with console.progress() as report:
        for device in devices:
            found += benchmark(nets, engines, batches, device, rules, settings, report)
    told = facts(engines)
    if plot is not None:
        from netdsl.plots import plot_of_comparisons

        plot.write_text(plot_of_comparisons(found, engines, told), encoding="utf-8")
    if as_json:
        console.print_json({"machine": told, "rounds": rounds, "results": [c.as_dict() for c in found]})
    else:
        _print(found, engines, told, rounds)
        if plot is not None:
            click.echo(f"written to {plot}")
    click.get_current_context().exit(int(any(o.wrong for c in found for o in c.outcomes)))


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
