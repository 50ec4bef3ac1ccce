"""`netdsl bench` and `netdsl profile`."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.conftest import Netdsl
from netdsl import lowerings, peers
from netdsl.backends.cuda import device as gpu
from netdsl.errors import DeviceError

pytest.importorskip("onnxruntime")

BENCH = ("--peers", "onnxruntime", "--rounds", 2, "--threads", 1)


def test_bench_prints_a_row_for_each_network_and_batch(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("bench", tiny, "lenet5", *BENCH, "--batch", "1,3", "--set", "classes=10")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["network", "batch", "netdsl", "ms", "onnxruntime"]
    assert [line.split()[:2] for line in lines[1:5]] == [["tiny", "1"], ["tiny", "3"], ["lenet5", "1"], ["lenet5", "3"]]
    assert all(line.split()[-2] == "onnxruntime" for line in lines[1:5])
    assert lines[5].startswith("batch 1: geometric mean")
    assert "1 thread, float32" in lines[-1]


def test_bench_as_json_and_plot(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    plot = tmp_path / "out.svg"
    record = netdsl("bench", tiny, *BENCH, "--json", "--plot", plot).json
    (result,) = record["results"]
    assert (result["network"], result["batch"], result["threads"], result["best_peer"]) == (
        "tiny", 1, 1, "onnxruntime",
    )  # fmt: skip
    assert result["inputs"] == [[1, 8, 8]]
    assert [o["engine"] for o in result["outcomes"]] == ["netdsl", "onnxruntime"]
    assert record["machine"]["versions"]["onnxruntime"] == peers.version(peers.PEERS[0])
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_bench_in_less_than_float32_says_so(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    plot, wide = tmp_path / "out.svg", ("--set", "wide=300", "--set", "classes=700")
    done = netdsl("bench", tiny, *BENCH, *wide, "--precision", "bf16", "--plot", plot)
    assert done.status == 0, done.out
    assert "1 thread, netdsl in bfloat16, the others in float32" in done.out
    assert "netdsl in bfloat16, the others in float32" in plot.read_text()
    (result,) = netdsl("bench", tiny, *BENCH, *wide, "--precision", "bf16", "--json").json["results"]
    assert result["precision"] == "bfloat16" and 1e-4 < result["outcomes"][1]["difference"] <= 1e-2
    refused = netdsl("bench", tiny, *BENCH, "--device", "cpu", "--precision", "tf32")
    assert refused.status == 1 and "error[precision-device]" in refused.err
    several = netdsl("bench", tiny, "--device", "cpu,reference", "--precision", "bf16")
    assert several.status == 2 and "--precision is for one device at a time" in several.err


def test_bench_without_peers_times_netdsl_alone(netdsl: Netdsl, tiny: Path) -> None:
    (result,) = netdsl("bench", tiny, "--peers", "", "--rounds", 1, "--json").json["results"]
    assert result["outcomes"][0]["median"] > 0 and result["ratio"] is None


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Getting ready takes a process of its own each time; not here."""
    monkeypatch.setattr(lowerings, "start", lambda *_: lowerings.Start(2.0, 0.5))


@pytest.mark.usefixtures("soon")
def test_devices_side_by_side(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    plot = tmp_path / "out.svg"
    told = ("--device", "cpu,reference,cpu", "--batch", "1,2", "--rounds", 1, "--threads", 1)
    done = netdsl("bench", tiny, *told, "--plot", plot)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["network", "batch", "device", "ms"]
    assert [line.split()[1:3] for line in lines[1:5]] == [
        ["1", "cpu"],
        ["1", "reference"],
        ["2", "cpu"],
        ["2", "reference"],
    ]
    assert "tiny on cpu: ready for batch 1 in 2.00 s, 0.50 s with kept kernels" in lines
    assert lines[-1] == f"written to {plot}" and ElementTree.parse(plot).getroot().tag.endswith("svg")
    record = netdsl("bench", tiny, *told, "--json").json
    (result,) = record["side_by_side"]
    assert set(result) >= {"network", "inputs", "macs", "threads", "devices", "starts", "runs", "crossings"}
    assert [(r["device"], r["batch"]) for r in result["runs"]][:2] == [("cpu", 1), ("reference", 1)]
    assert record["machine"]["processors"] and record["rounds"] == 1


@pytest.mark.usefixtures("soon")
def test_devices_that_differ_are_not_timed(netdsl: Netdsl, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowerings, "difference", lambda given, expected: 0.25)
    done = netdsl("bench", tiny, "--device", "cpu,reference")
    assert done.status == 1
    assert "the answer of reference differs from that of cpu by 2.5e-01 of the largest value: nothing" in done.out
    assert all("-" in line.split()[3] for line in done.out.splitlines()[1:3])


@pytest.mark.usefixtures("soon")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_timed(
    netdsl: Netdsl, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise DeviceError("the NVIDIA driver shows no GPU", code="cuda-no-device", hint='use device="cpu"')

    monkeypatch.setattr(gpu, "find", none)
    done = netdsl("bench", tiny, "--device", "cpu,cuda", "--batch", "1,8,64")
    assert (done.status, done.out) == (1, "")
    assert "error[cuda-no-device]: the NVIDIA driver shows no GPU\n  hint: use device" in done.err


def test_an_answer_that_differs_ends_with_status_1(
    netdsl: Netdsl, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(peers.OnnxRuntime, "prepare", lambda self, task: lambda: [task.inputs[0][:, 0, 0, :3]])
    done = netdsl("bench", tiny, *BENCH)
    assert done.status == 1
    assert "netdsl: no engine agrees with its answer" in done.out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--peers", "onxruntime"), 1, "did you mean onnxruntime"),
        (("--batch", "1,many"), 2, "'1,many'"),
        (("--batch", "0"), 2, "from 1 to 4096"),
        (("--device", "cpu,,cupu"), 1, 'did you mean "cpu"'),
        (("--device", ","), 2, "name a device"),
        (("--device", "cpu,reference", "--peers", "torch"), 2, "one device at a time"),
        (("--plot", "no/such/folder/a.svg"), 1, "no such folder"),
    ],
)
def test_wrong_use(netdsl: Netdsl, tiny: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = netdsl("bench", tiny, *arguments)
    assert done.status == status
    assert said in done.err


def test_a_peer_that_is_not_installed(netdsl: Netdsl, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.OpenVino, "modules", ("no_such_module", "onnx"))
    done = netdsl("bench", tiny, "--peers", "openvino")
    assert done.status == 1
    assert "pip install openvino onnx" in done.err


def test_profile_prints_every_step(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("profile", tiny, "--rounds", 1, "--batch", 2)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "tiny, batch 2"
    assert lines[1].split() == ["layer", "kernel", "ms", "share", "GFLOP/s", "of", "peak", "GB/s"]
    assert any(line.split()[1].startswith("conv_") for line in lines[2:-3])
    assert lines[-1].startswith("machine: ")


def test_profile_as_json_trace_and_plot(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    trace, plot = tmp_path / "trace.json", tmp_path / "roof.svg"
    record = netdsl("profile", tiny, "--rounds", 1, "--json", "--trace", trace, "--plot", plot).json
    assert sum(step["macs"] for step in record["steps"]) == 8 * 8 * 9 * 4 + 3 * 4
    assert {e["name"] for e in json.loads(trace.read_text())["traceEvents"]} >= {s["path"] for s in record["steps"]}
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_profile_refuses_what_it_cannot_write(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("profile", tiny, "--trace", "no/such/folder/trace.json")
    assert done.status == 1
    assert "no such folder" in done.err
