"""bench/report.py: the README's tables from results files, and the check of ratios."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import report
from netdsl.benchmark import Comparison, Outcome
from records import ROOT, Record

MACHINE = {
    "processor": "Some Processor", "processors": 2, "target": "some", "lanes": 16, "system": "Linux", "python": "3.11",
    "versions": {"netdsl": "0.1", "numba": "0.6", "onnxruntime": "1.3", "ncnn": "1.0"},
    "settings": {}, "date": "2026-01-01",
}  # fmt: skip


def comparison(network: str, batch: int, ort: float, ncnn: float | None) -> dict[str, Any]:
    last = Outcome("ncnn", ncnn, ncnn, ncnn) if ncnn else Outcome("ncnn", reason="it knows no such layer")
    outcomes = Outcome("netdsl", 1e-3, 9e-4, 2e-3), Outcome("onnxruntime", ort, ort, ort, 1e-7), last
    return Comparison(network, ((3, 224, 224),), batch, "cpu", 2, 10**9, outcomes).as_dict()


def record(results: Any, **more: Any) -> Record:
    return {
        "command": "python bench/report.py --all",
        "commit": "0123abc",
        "machine": MACHINE,
        "results": results,
    } | more


def samples() -> dict[str, Record]:
    peers = [comparison("resnet18", 1, 2e-3, 3e-3), comparison("unet", 1, 1.5e-3, None)]
    rungs = [{"rung": rung, "channels": 64, "side": 56, "seconds": 1e-3, "error": 1e-6, "flops": 1e11,
              "part_of_peak": 0.9} for rung in (*report.ladder.LOWER, *report.ladder.UPPER)]  # fmt: skip
    took = {"netdsl run, first ever": 5.0, "netdsl run, later": 0.5, "ONNX Runtime": 0.25, "Python alone": 0.02}
    starts = [{"what": what, "seconds": seconds, "runs": [seconds]} for what, seconds in took.items()]
    memory = {"network": "resnet18", "netdsl": 220 << 20, "onnxruntime": 200 << 20, "ratio": 1.1, "arena": 9 << 20,
              "weights": 46 << 20}  # fmt: skip
    scaling = {"network": "resnet18", "threads": 2, "seconds_one_thread": 2e-3, "seconds_all_threads": 1e-3,
               "speedup": 1.6, "machine_speedup": 1.75, "callers": 8, "images_per_second_one_caller": 1000.0,
               "images_per_second_all_callers": 900.0, "throughput": 0.9}  # fmt: skip
    halves = [{"network": "alexnet", "batch": 1, "engine": "netdsl", "precision": precision, "seconds": 1e-2 / ratio,
               "ratio": ratio, "dense_seconds": 5e-3 / ratio, "dense_ratio": ratio, "difference": 2e-3,
               "same_class": 1.0, "weights": None}
              for precision, ratio in (("float32", 1.0), ("bfloat16", 1.6))]  # fmt: skip
    halves.append(halves[0] | {"engine": "onnxruntime", "dense_seconds": None, "dense_ratio": None, "ratio": 0.9})
    chain = {"case": "3x3, then 1x1", "rewrite": "merge_chains", "batch": 1, "threads": 2, "macs_without": 25 * 10**6,
             "macs_with": 10**7, "seconds_without": 3e-4, "seconds_with": 2e-4, "ratio": 1.5}  # fmt: skip
    return {
        "algebra": record([chain], rounds=30),
        "peers": record(peers, threads=2, rounds=30, means=[{"batch": 1, "networks": 1, "mean": 2.0, "target": 1.5}]),
        "again": record([comparison("resnet18", 1, 1.5e-3, 3e-3)], threads=2, rounds=60, means=[]),
        "families": record([comparison("vgg11", 1, 1.2e-3, 4e-3)], threads=2, rounds=9, means=[]),
        "others": record([comparison("nin", 1, 2e-3, 3e-3)], threads=2, rounds=5, means=[]),
        "startup": record(starts, network="resnet18", threads=2),
        "memory": record([memory], threads=2),
        "scaling": record([scaling], rounds=20),
        "half": record(halves, rounds=15, threads=2, bandwidth=1.6e10),
        "ladder": record(rungs, rounds=10, threads=1, roof={"flops": 2.5e11, "bandwidth": 2e10}),
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    for name, content in samples().items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\n## More\n")
    return path


def test_the_readme_says_what_was_measured(results: Path, readme: Path) -> None:
    assert report.main(["--tables", "--results", str(results), "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith(f"# Title\n\n{report.BEGIN}\n") and text.endswith(f"{report.END}\n\n## More\n")
    assert "old" not in text
    assert "| resnet18 | 1 | 1 | 2 | 3 | onnxruntime | 2.00 | 1.6 |" in text
    assert "Geometric mean of the ratios, batch 1: 2.00 (target 1.5). Short of the target: none." in text
    assert "Medians of 60 rounds" in text and "Short of the target: resnet18, batch 1: 1.50 for 1.6." in text
    assert "Short of the target: vgg11, batch 1: 1.20 for 1.5." in text
    assert ">resnet18</text>" in (results / "peers.svg").read_text()
    assert "| nin | 1 | 1 | 2 | 3 | onnxruntime | 2.00 | 1 |" in text
    assert "unet, batch 1: ncnn: it knows no such layer" in text
    assert "| netdsl run, later | 0.50 |" in text
    assert "| 3x3, then 1x1 | merge_chains | 25.0 | 10.0 | 300 | 200 | 1.50 |" in text
    assert "| resnet18 | 2 | 2 | 1 | 1.60 | 1.75 | 8 | 1000 | 900 | 0.90 |" in text
    assert "| resnet18 | 220.0 | 200.0 | 1.10 | 9.0 | 46.0 |" in text
    assert "| alexnet | 1 | netdsl, bfloat16 | 6.25 | 1.60 | 3.12 | 1.60 | 2e-03 | 100% |" in text
    for match in re.finditer(r"(?m)^(\|.*\|)\n(\| -.*\|)\n", text):
        assert match[1].count("|") == match[2].count("|")


def test_writing_twice_changes_nothing(results: Path, readme: Path) -> None:
    report.rewrite(readme, results)
    once = readme.read_text()
    report.rewrite(readme, results)
    assert readme.read_text() == once


def test_the_readme_of_the_project_has_a_place_for_it(results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.md"
    copy.write_text((ROOT / "README.md").read_text(encoding="utf-8"))
    report.rewrite(copy, results)


def test_a_readme_without_a_place_is_refused(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.md"
    path.write_text("# Title\n")
    with pytest.raises(SystemExit, match="must hold one line"):
        report.rewrite(path, results)


@pytest.mark.parametrize("name", report.PROGRAMS)
def test_equal_results_pass_the_check(name: str) -> None:
    assert report.fallen(name, samples()[name], samples()[name]) == []
    assert report.ratios(name, samples()[name])


def test_a_ratio_that_fell_is_told() -> None:
    fresh = samples()["peers"]
    fresh["results"][0] = comparison("resnet18", 1, 1.7e-3, 3e-3)
    assert report.fallen("peers", samples()["peers"], fresh) == [
        "peers: resnet18, batch 1, beside onnxruntime: 2.00 has fallen to 1.70"
    ]
    fresh["results"][0] = comparison("resnet18", 1, 1.85e-3, 3e-3)
    assert report.fallen("peers", samples()["peers"], fresh) == []


def test_another_best_peer_is_compared_all_the_same() -> None:
    fresh = samples()["peers"]
    fresh["results"][0] = comparison("resnet18", 1, 4e-3, 1.2e-3)
    assert len(report.fallen("peers", samples()["peers"], fresh)) == 1


@pytest.mark.parametrize(
    ("name", "key", "value"), [("memory", "ratio", 1.5), ("scaling", "throughput", 0.5), ("algebra", "ratio", 1.2)]
)
def test_other_ratios_are_checked(name: str, key: str, value: float) -> None:
    fresh = samples()[name]
    fresh["results"][0][key] = value
    assert len(report.fallen(name, samples()[name], fresh)) == 1


def test_check_measures_anew(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is found here cannot be compared with the samples: other networks, other rungs."""
    assert report.main(["--check", "--quick", "--only", "ladder", "--results", str(results)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no ratio fell"


def test_check_ends_with_status_1(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "fallen", lambda name, committed, fresh: [f"{name} fell"])
    assert report.main(["--check", "--quick", "--only", "ladder", "--results", str(results)]) == 1


def test_a_profile_is_measured_and_drawn(results: Path) -> None:
    report.profile(results, quick=True)
    assert "lenet5" in (results / "roofline.svg").read_text()
    assert json.loads((results / "profile.json").read_text())["network"] == "lenet5"


def test_an_unknown_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report.main(["--check", "--only", "speed"])
    assert "there is no program speed" in capsys.readouterr().err


def test_a_program_that_fails_ends_the_report(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"bench/scaling\.py ended with status"):
        report.measure(["scaling"], tmp_path, {"scaling": ["--rounds", "none"]})
