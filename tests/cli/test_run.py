"""`netdsl run`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Netdsl
from netdsl.backends.cuda import device as gpu
from netdsl.errors import DeviceError

TWO = """\
netdsl 1
net two() {
  input image 3x?x?
  input mask 1x4x6
  from image | avgpool global | flatten | dense 2
  output class
  from mask | sigmoid
  output soft
}
"""


def rows(out: str) -> dict[str, str]:
    """The lines `name text` above the answer."""
    head = out.split("\n\n")[0]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in head.splitlines()}


def test_lenet_names_the_digit_on_the_sample(netdsl: Netdsl) -> None:
    done = netdsl("run", "lenet5")
    assert done.status == 0
    said = rows(done.out)
    assert said["network"] == "lenet5: 61,706 parameters, 416,520 multiply-accumulates an image"
    assert said["weights"] == "lenet5.safetensors"
    assert said["device"].startswith("cpu, ")
    assert said["input"] == "digit.png (a sample that ships) as image [1, 1, 32, 32]"
    assert said["time"].startswith("compiled in ")
    table = done.out.split("\n\n")[1].splitlines()
    assert table[0].split() == ["class", "probability"]
    assert len(table) == 6
    best, chance = table[1].split()
    assert best in "0123456789" and float(chance.rstrip("%")) > 90


def test_json_has_the_same_on_every_device(netdsl: Netdsl) -> None:
    cpu = netdsl("run", "lenet5", "--json", "--top", 2, "--threads", 1).json
    slow = netdsl("run", "lenet5", "--json", "--top", 2, "--device", "reference").json
    assert (cpu["device"], cpu["threads"], slow["device"]) == ("cpu", 1, "reference")
    assert not cpu["random_weights"]
    assert cpu["inputs"] == [{"name": "image", "shape": [1, 1, 32, 32], "source": "digit.png (a sample that ships)"}]
    assert cpu["compile_seconds"] > 0 and cpu["run_seconds"] > 0
    for record in (cpu, slow):
        (output,) = record["outputs"]
        assert (output["name"], output["shape"]) == ("out", [1, 10])
        assert len(output["answers"]) == 1 and len(output["answers"][0]) == 2
    a, b = cpu["outputs"][0]["answers"][0][0], slow["outputs"][0]["answers"][0][0]
    assert a["label"] == b["label"] == str(a["index"])
    assert a["probability"] == pytest.approx(b["probability"], rel=1e-4)


def test_random_weights_are_said_aloud(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("run", tiny, "--seed", 7)
    assert done.status == 0
    said = "random weights (seed 7): the answer means nothing; give real ones with --weights FILE"
    assert rows(done.out)["weights"] == said
    published = netdsl("run", "lenet5", "--weights", "random")
    assert rows(published.out)["weights"].endswith("--weights FILE or --weights pretrained")
    assert netdsl("run", tiny, "--json").json["random_weights"]


def test_weights_from_a_file(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    weights = {
        "0.weight": np.zeros((4, 1, 3, 3)),
        "0.bias": np.ones(4),
        "4.weight": np.eye(3, 4) * 9,
        "4.bias": np.array([0.0, 0.0, 1.0]),
    }
    np.savez(tmp_path / "w.npz", **weights)
    done = netdsl("run", tiny, "--weights", tmp_path / "w.npz", "--json")
    assert done.json["weights"] == str(tmp_path / "w.npz")
    assert done.json["outputs"][0]["answers"][0][0]["index"] == 2
    np.savez(tmp_path / "w.npz", **weights | {"4.bias": np.zeros(5)})
    done = netdsl("run", tiny, "--weights", tmp_path / "w.npz")
    assert (done.status, done.out) == (1, "")
    assert "4.bias" in done.err


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 1, 8, 8)])
def test_a_picture_or_an_array_goes_in(netdsl: Netdsl, tiny: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    values = (pixels / np.float32(255)).astype(np.float32)
    np.save(tmp_path / "x.npy", values.reshape(shape))
    np.savez_compressed(tmp_path / "x.npz", image=values.reshape(1, 1, 8, 8), other=np.zeros(3))
    first = netdsl("run", tiny, "--json", "--input", tmp_path / "x.png").json["outputs"]
    assert netdsl("run", tiny, "--json", "--input", tmp_path / "x.npz").json["outputs"] == first
    array = netdsl("run", tiny, "--json", "--input", tmp_path / "x.npy")
    if len(shape) == 2:
        assert array.status == 1 and "x[None, None]" in array.err
    else:
        assert array.json["outputs"] == first


def test_batch_repeats_the_input(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 1, 8, 8), np.float32))
    two = netdsl("run", tiny, "--json", "--input", tmp_path / "x.npy").json["outputs"][0]["answers"]
    five = netdsl("run", tiny, "--json", "--input", tmp_path / "x.npy", "--batch", 5).json["outputs"][0]["answers"]
    assert [image[0]["probability"] for image in five] == pytest.approx(
        [two[i % 2][0]["probability"] for i in range(5)]
    )
    out = netdsl("run", tiny, "--input", tmp_path / "x.npy", "--batch", 3).out
    assert [line.split()[0] for line in out.split("\n\n")[1].splitlines()] == ["image", "0", "1", "2"]


def test_no_images_give_no_answers(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 1, 8, 8)))
    done = netdsl("run", tiny, "--input", tmp_path / "x.npy")
    assert (done.status, done.err) == (0, "")
    assert netdsl("run", tiny, "--json", "--input", tmp_path / "x.npy").json["outputs"][0]["answers"] == []


def test_settings_are_typed(netdsl: Netdsl, tiny: Path) -> None:
    record = netdsl("run", tiny, "--json", "--set", "classes=7", "--top", 99).json
    assert len(record["outputs"][0]["answers"][0]) == 7


def test_a_filter_takes_a_picture_and_writes_one(netdsl: Netdsl, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    done = netdsl("run", "filters/identity", "--input", tmp_path / "in.png", "--output", tmp_path / "out.png")
    assert done.status == 0, done.err
    assert rows(done.out)["weights"] == "none needed"
    assert "output out [1, 3, 9, 13]: from " in done.out
    assert done.out.endswith(f"written to {tmp_path / 'out.png'}\n")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), pixels)
    without = netdsl("run", "filters/identity", "--input", tmp_path / "in.png").out
    assert "--output FILE.png" in without


def test_outputs_go_to_arrays(netdsl: Netdsl, tiny: Path, tmp_path: Path) -> None:
    assert netdsl("run", tiny, "--output", tmp_path / "y.npy").status == 0
    assert np.load(tmp_path / "y.npy").shape == (1, 3)
    assert netdsl("run", tiny, "--output", tmp_path / "y.npz").status == 0
    assert np.load(tmp_path / "y.npz")["out"].shape == (1, 3)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.net"
    path.write_text(TWO)
    return path


def test_several_inputs_and_outputs(netdsl: Netdsl, two: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "picture.png")
    np.save(tmp_path / "mask.npy", np.zeros((1, 4, 6)))
    by_order = ["--input", tmp_path / "picture.png", "--input", tmp_path / "mask.npy"]
    by_name = ["--input", f"mask={tmp_path / 'mask.npy'}", "--input", f"image={tmp_path / 'picture.png'}"]
    records = [netdsl("run", two, "--json", *given).json for given in (by_order, by_name)]
    assert records[0]["outputs"] == records[1]["outputs"]
    assert [i["shape"] for i in records[0]["inputs"]] == [[1, 3, 5, 7], [1, 1, 4, 6]]
    classes, soft = records[0]["outputs"]
    assert classes["name"] == "class" and len(classes["answers"][0]) == 2
    assert soft["min"] == soft["max"] == soft["mean"] == 0.5
    out = netdsl("run", two, *by_order, "--output", tmp_path / "all.npz").out
    assert "output class\n" in out and "output soft [1, 1, 4, 6]" in out
    assert sorted(np.load(tmp_path / "all.npz")) == ["class", "soft"]
    done = netdsl("run", two, *by_order, "--output", tmp_path / "one.png")
    assert done.status == 1 and "2 outputs (class, soft)" in done.err and "compiling" not in done.err
    assert netdsl("run", two).status == 0  # samples for both


def bad(name: str, content: bytes) -> Any:
    def write(folder: Path) -> list[Any]:
        (folder / name).write_bytes(content)
        return ["--input", folder / name]

    return write


def npy(array: Any, name: str = "x.npy") -> Any:
    def write(folder: Path) -> list[Any]:
        np.save(folder / name, array, allow_pickle=True)
        return ["--input", folder / name]

    return write


def npz(**arrays: Any) -> Any:
    def write(folder: Path) -> list[Any]:
        np.savez(folder / "x.npz", **arrays)
        return ["--input", folder / "x.npz"]

    return write


HUGE = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999), }".ljust(127)
    + b"\n"
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda f: ["--input", f / "none.png"], "no such file"),
        (lambda f: ["--input", f / "none.npy"], "no such file"),
        (lambda f: ["--input", f], "cannot be read"),
        (bad("x.png", b"not a picture"), "not a picture"),
        (bad("x.npy", b"not an array"), "cannot be read"),
        (bad("x.npy", b""), "cannot be read"),
        (bad("x.npy", HUGE), "cannot be read"),
        (bad("x.npz", b"PK\x03\x04 cut"), "x.npz"),
        (bad("x.npz", b"no archive"), "x.npz"),
        (npy(np.array([{}], object)), "cannot be read"),
        (npy(np.zeros((1, 1, 9, 9))), "found [1, 1, 9, 9]"),
        (npy(np.zeros((1, 1, 8, 8), complex)), "real numbers"),
        (npz(images=np.zeros(3), y=np.zeros(3)), "no array named image"),
        (npz(image=np.zeros((1, 2, 8, 8))), "found [1, 2, 8, 8]"),
        (lambda f: [*npy(np.zeros((1, 8, 8)))(f), *npy(np.zeros((1, 8, 8)))(f)], "takes 1 input (image), found 2"),
        (lambda f: ["--output", f / "y.doc"], "suffix '.doc'"),
        (lambda f: ["--output", f / "none" / "y.npy"], "no such folder"),
        (lambda f: ["--output", f / "y.png"], "is not a picture"),
        (lambda f: ["--weights", "pretrained"], "no published weights"),
        (lambda f: ["--weights", f / "none.pth"], "no such file"),
        (lambda f: ["--set", "clases=3"], "did you mean `classes`?"),
        (lambda f: ["--set", "wide=0"], "error["),
        (lambda f: ["--set", "classes=no"], "error["),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    netdsl: Netdsl, tiny: Path, tmp_path: Path, given: Any, message: str
) -> None:
    done = netdsl("run", tiny, *given(tmp_path))
    assert done.status == 1, done.out
    assert message in done.err
    assert "internal error" not in done.err


def test_a_gpu_that_is_not_there_is_said(netdsl: Netdsl, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> gpu.Device:
        raise DeviceError("the NVIDIA driver shows no GPU", code="cuda-no-device", hint='use device="cpu"')

    monkeypatch.setattr(gpu, "find", find)
    for command in ("run", "bench", "profile"):
        done = netdsl(command, tiny, "--device", "cuda")
        assert done.status == 1
        assert "error[cuda-no-device]: the NVIDIA driver shows no GPU" in done.err


def test_weights_in_16_bits_are_said_aloud(netdsl: Netdsl, tiny: Path) -> None:
    given = ["run", tiny, "--device", "cpu", "--set", "wide=300", "--set", "classes=700", "--precision", "bf16"]
    done = netdsl(*given)
    said = "weights of 1 layer as bfloat16, 0.42 MB instead of 0.84 MB"
    assert done.status == 0 and done.err.endswith(f"note: {said}\n")  # after what is said of compiling
    assert re.search(r"(?m)^device +cpu, \d+ threads?, bfloat16$", done.out)
    report = netdsl(*given, "--json").json
    assert report["precision"] == "bfloat16"
    assert report["weights_kept"] == {"precision": "bfloat16", "layers": 1, "bytes": 420000, "float32_bytes": 840000}
    plain = netdsl(*given[:-2], "--json")
    assert (plain.json["precision"], plain.json["weights_kept"], plain.err) == ("float32", None, "")
    none = netdsl("run", tiny, "--device", "cpu", "--precision", "bfloat16")
    assert none.err.endswith("note: no layer waits for memory, so no weights are kept as bfloat16\n")


def test_tf32_belongs_to_a_gpu(netdsl: Netdsl, tiny: Path) -> None:
    done = netdsl("run", tiny, "--device", "cpu", "--precision", "tf32")
    assert done.status == 1
    assert "error[precision-device]: precision tf32 needs the tensor cores of a GPU" in done.err
