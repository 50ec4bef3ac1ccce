"""Everything that is measured, again, and what the README says of it.

    python bench/report.py --all      measure all into bench/results/*.json, draw the plots, rewrite the README's tables
    python bench/report.py --tables   only draw and rewrite, from the results there are
    python bench/report.py --check    measure anew beside the committed results; ends with status 1 if a ratio fell

--only peers,memory,… takes some of the programs; --quick a small network and few rounds, to try them out. A check
compares ratios (to other engines, of threads, to the measured peak), which say the same on a machine half as fast.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import algebra
import half
import ladder
import memory
import scaling
from netdsl.benchmark import Comparison, headings, remarks
from netdsl.peers import PEERS
from netdsl.plots import plot_of_comparisons
from peers import short, table
from records import RESULTS, ROOT, Record, checked, read

PROGRAMS = ("peers", "again", "families", "others", "startup", "memory", "scaling", "half", "ladder", "algebra")
SCRIPTS = {"again": "peers", "families": "peers", "others": "peers"}  # where the results are not named like the program
FULL = {
    "peers": ["--networks", "headline"],
    "again": ["--networks", "headline", "--rounds", "60"],
    "families": ["--networks", "families", "--rounds", "9"],
    "others": ["--networks", "others", "--rounds", "5"],
}
QUICK = {
    "peers": ["--networks", "lenet5", "--rounds", "2"],
    "again": ["--networks", "lenet5", "--rounds", "2"],
    "families": ["--networks", "lenet5", "--rounds", "2"],
    "others": ["--networks", "lenet5", "--rounds", "2"],
    "startup": ["--network", "lenet5", "--runs", "1"],
    "memory": ["--networks", "lenet5"],
    "scaling": ["--networks", "lenet5", "--rounds", "2", "--seconds", "0.1"],
    "half": ["--networks", "lenet5", "--batch", "1", "--rounds", "2"],
    "ladder": ["--convolutions", "16x8", "--rounds", "2"],
    "algebra": ["--cases", "dense", "--rounds", "2"],
}
ROOFLINE = "resnet50"  # the network whose layers are drawn under the roof
TOLERANCE = 0.1  # chosen: a ratio may fall by so much, as a busy machine makes it
BEGIN, END = "<!-- measured: bench/report.py writes what stands here -->", "<!-- /measured -->"


def measure(programs: Sequence[str], folder: Path, arguments: Mapping[str, Sequence[str]]) -> None:
    """Run programs, each in a process of its own, with their results in a folder."""
    for name in programs:
        out = folder / f"{name}.json"
        command = [
            sys.executable,
            ROOT / "bench" / f"{SCRIPTS.get(name, name)}.py",
            "--out",
            out,
            *arguments.get(name, ()),
        ]
        print(f"== {name}", flush=True)
        done = subprocess.run([*map(str, command)])
        if done.returncode:
            sys.exit(f"bench/{name}.py ended with status {done.returncode}")


def draw(folder: Path) -> None:
    """The speed ratios of the headline networks, as a plot."""
    record = read(folder / "peers.json")
    comparisons = compared(record)
    drawn = [peer for peer in PEERS if peer.name in record["machine"]["versions"]]
    svg = plot_of_comparisons(comparisons, drawn, record["machine"])
    (folder / "peers.svg").write_text(svg, encoding="utf-8")


def profile(folder: Path, quick: bool) -> None:
    """One network's layers, timed and drawn under the roof, with as many threads as the peers had."""
    threads = read(folder / "peers.json")["threads"]
    network, rounds = ("lenet5", 2) if quick else (ROOFLINE, 50)
    command = [sys.executable, "-m", "netdsl", "profile", network, "--threads", threads, "--rounds", rounds]
    text = checked([*command, "--json", "--plot", folder / "roofline.svg"])
    (folder / "profile.json").write_text(text, encoding="utf-8")


def compared(record: Record) -> list[Comparison]:
    return [Comparison.from_dict(result) for result in record["results"]]


# What the README says.


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are set flush left, the others flush right."""
    rules = ["---" if i < left else "---:" for i in range(len(columns))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rules, *rows))


def peers_text(record: Record) -> str:
    machine, names = record["machine"], [p.name for p in PEERS if p.name in record["machine"]["versions"]]
    comparisons = compared(record)
    rows = markdown((*headings(names), "target"), table(comparisons, names))
    means = [f"batch {m['batch']}: {m['mean']:.2f} (target {m['target']})" for m in record["means"]]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    settings = "".join(f"- {peer.title}: {peer.settings}\n" for peer in PEERS if peer.name in names)
    told = "".join(f"- {remark}\n" for remark in remarks(comparisons))
    return f"""\
{machine["processor"]}, {record["threads"]} threads, float32, {machine["date"]}, commit {record["commit"]}. Medians of
{record["rounds"]} interleaved rounds in milliseconds, answers compared first. The ratio is the fastest peer's time
divided by netdsl's. {versions}.

{rows}

Geometric mean of the ratios, {"; ".join(means)}. {missed(comparisons)}

![Speed beside other engines](bench/results/peers.svg)

<details><summary>How each engine was set up</summary>

{settings}{told}
</details>
"""


def more_text(what: str, record: Record) -> str:
    names = [p.name for p in PEERS if p.name in record["machine"]["versions"]]
    comparisons = compared(record)
    rows = markdown((*headings(names), "target"), table(comparisons, names))
    told = "".join(f"- {remark}\n" for remark in remarks(comparisons))
    return f"""\
Medians of {record["rounds"]} rounds, measured in the same way, commit {record["commit"]}.

<details><summary>{what}</summary>

{rows}

{told}
</details>

{missed(comparisons)}
"""


def missed(comparisons: Sequence[Comparison]) -> str:
    """A sentence on the ratios that are less than their targets."""
    return f"Short of the target: {'; '.join(short(comparisons)) or 'none'}."


def startup_text(record: Record) -> str:
    rows = [(r["what"], f"{r['seconds']:.2f}") for r in record["results"]]
    intro = f"Whole processes that answer one image with {record['network']}, {record['threads']} threads:"
    return f"{intro}\n\n{markdown(('process', 'seconds'), rows)}\n"


def memory_text(record: Record) -> str:
    columns = ("network", "netdsl MiB", "ONNX Runtime MiB", "ratio", "arena MiB", "weights MiB")
    table = markdown(columns, [memory.cells(r) for r in record["results"]])
    return f"Peak resident memory of a process that answers one image:\n\n{table}\n"


def scaling_text(record: Record) -> str:
    table = markdown(scaling.COLUMNS, [scaling.cells(r) for r in record["results"]])
    return f"""\
One thread and all, one caller and many. The machine's own speedup is that of its peak, in the same rounds.

{table}
"""


def half_text(record: Record) -> str:
    table = markdown(half.COLUMNS, [half.cells(r) for r in record["results"]], left=3)
    how = f"{record['threads']} threads, medians of {record['rounds']} turns"
    return f"""\
netdsl with `--precision`, beside float32: whole networks and their dense layers by themselves, {how}.
Memory gives {record["bandwidth"] / 1e9:.1f} GB/s. Differences are relative to the largest value.

{table}
"""


def ladder_text(record: Record) -> str:
    columns = ("3x3 convolution", "rung", "ms", "GFLOP/s", "of peak", "error")
    table = markdown(columns, [ladder.cells(r) for r in record["results"]], left=2)
    peak = record["roof"]["flops"] / 1e9
    return f"""\
One convolution on one thread, from plain loops to Winograd's algorithm (credited with the multiplications of the
definition). The peak, {peak:.0f} GFLOP/s, is measured in turns with the rungs; each round has its own ratio.

{table}

![Every layer under the roof](bench/results/roofline.svg)
"""


def algebra_text(record: Record) -> str:
    table = markdown(algebra.COLUMNS, [algebra.cells(r) for r in record["results"]], left=2)
    return f"""\
Small networks without a [rewrite](docs/rewrites.md) of linear layers and with it, {record["results"][0]["threads"]} \
threads, batch {record["results"][0]["batch"]}:

{table}
"""


TEXTS: Mapping[str, tuple[str, Callable[[Record], str]]] = {
    "peers": ("Beside other engines", peers_text),
    "again": ("The same in another run", partial(more_text, "The seven networks again: ratios move")),
    "families": ("Their families", partial(more_text, "The other VGGs and ResNets")),
    "others": ("The other networks", partial(more_text, "All other networks that ship")),
    "startup": ("Start", startup_text),
    "memory": ("Memory", memory_text),
    "scaling": ("Threads and callers", scaling_text),
    "half": ("Weights in 16 bits", half_text),
    "ladder": ("From loops to Winograd", ladder_text),
    "algebra": ("Linear layers rewritten", algebra_text),
}


def rewrite(readme: Path, folder: Path) -> None:
    """Put what was measured between the README's marks."""
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{readme} must hold one line {BEGIN} and one line {END}")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    parts = ["## How fast it is\n\n`python bench/report.py --all` measures all of this again.\n"]
    for name, (title, write) in TEXTS.items():
        parts.append(f"### {title}\n\n{write(read(folder / f'{name}.json'))}")
    readme.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}", encoding="utf-8")


# The check.


def ratios(name: str, record: Record) -> dict[str, float]:
    """What a check compares of a program's results; larger is better."""
    results = record["results"]
    if SCRIPTS.get(name, name) == "peers":
        return {f"{c.network}, batch {c.batch}, beside {c.best[0]}": c.best[1] for c in compared(record) if c.best}
    if name == "startup":
        took = {r["what"]: r["seconds"] for r in results}
        return {"ONNX Runtime's start / netdsl's": took["ONNX Runtime"] / took["netdsl run, later"]}
    if name == "memory":
        return {f"{r['network']}, ONNX Runtime's memory / netdsl's": 1 / r["ratio"] for r in results}
    if name == "scaling":
        speedups = {f"{r['network']}, speed-up of {r['threads']} threads": r["speedup"] for r in results}
        return speedups | {f"{r['network']}, throughput of {r['callers']} callers": r["throughput"] for r in results}
    if name == "algebra":
        return {f"{r['case']}, without {r['rewrite']} / with": r["ratio"] for r in results}
    if name == "half":
        return {f"{r['network']}, batch {r['batch']}, {r['precision']} beside float32": r["ratio"]
                for r in results if r["precision"] != "float32"}  # fmt: skip
    return {f"{r['rung']}, {r['channels']}x{r['side']}, part of the peak": r["part_of_peak"]
            for r in results if r["rung"] in ladder.UPPER}  # fmt: skip


def fallen(name: str, committed: Record, fresh: Record) -> list[str]:
    """The ratios that are less than TOLERANCE allows, in words. A peer that is now the best counts as the old one."""
    now = {_subject(what): ratio for what, ratio in ratios(name, fresh).items()}
    lines = []
    for what, before in ratios(name, committed).items():
        found = now.get(_subject(what))
        if found is not None and found < before * (1 - TOLERANCE):
            lines.append(f"{name}: {what}: {before:.2f} has fallen to {found:.2f}")
    return lines


def _subject(what: str) -> str:
    return what.partition(", beside ")[0]


def check(programs: Sequence[str], folder: Path, arguments: Mapping[str, Sequence[str]]) -> list[str]:
    """Measure anew, and tell which ratios fell against the results in a folder."""
    committed = {name: read(folder / f"{name}.json") for name in programs}
    with TemporaryDirectory(prefix="netdsl-") as temporary:
        measure(programs, Path(temporary), arguments)
        fresh = {name: read(Path(temporary) / f"{name}.json") for name in programs}
    return [line for name in programs for line in fallen(name, committed[name], fresh[name])]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    for option in ("--all", "--tables", "--check"):
        what.add_argument(option, action="store_true")
    parser.add_argument("--only", default=",".join(PROGRAMS), help="comma-separated programs")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    given = parser.parse_args(arguments)
    programs = given.only.split(",")
    unknown = set(programs) - set(PROGRAMS)
    if unknown:
        parser.error(f"there is no program {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    if given.check:
        lines = check(programs, given.results, QUICK if given.quick else FULL)
        print(*(lines or ["no ratio fell"]), sep="\n")
        return int(bool(lines))
    if given.all:
        measure(programs, given.results, QUICK if given.quick else FULL)
        profile(given.results, given.quick)
    draw(given.results)
    rewrite(given.readme, given.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
