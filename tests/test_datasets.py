"""Labelled data of every kind gives the same images and classes; broken, lying and dangerous files are refused."""

import gzip
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from netdsl.datasets import open_dataset
from netdsl.errors import InputError
from netdsl.graph.ir import InputSpec, Preprocess
from netdsl.tensor import TensorType

GREY = InputSpec("image", 0, TensorType((1, 8, 8)))
COLOUR = InputSpec("image", 0, TensorType((3, 32, 32)), Preprocess(mean=(0.5,), std=(0.5,)))
PIXELS = np.random.default_rng(1).integers(0, 256, (7, 8, 8), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2])


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_mnist(folder, prefix="t10k", suffix=""):
    wrap = gzip.compress if suffix else bytes
    (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(wrap(idx(PIXELS)))
    (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(wrap(idx(LABELS)))
    return folder / f"{prefix}-images-idx3-ubyte{suffix}"


def check_grey(data):
    assert len(data) == 7 and data.labels.tolist() == LABELS.tolist()
    x = np.concatenate([x for x, _ in data.batches(3)])
    np.testing.assert_allclose(x[:, 0], PIXELS / 255, atol=1e-6)
    assert x.dtype == np.float32


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(tmp_path, suffix):
    check_grey(open_dataset(write_mnist(tmp_path, suffix=suffix), GREY, 10))


def test_mnist_folder_prefers_the_test_set(tmp_path):
    write_mnist(tmp_path, "train", ".gz")
    write_mnist(tmp_path, "t10k", ".gz")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    check_grey(open_dataset(tmp_path, GREY, 10))


@pytest.mark.parametrize("names", [("x", "labels"), ("images", "y"), ("data", "targets")])
def test_npz_of_pixels(tmp_path, names):
    np.savez_compressed(tmp_path / "d.npz", **{names[0]: PIXELS, names[1]: LABELS})
    check_grey(open_dataset(tmp_path / "d.npz", GREY, 10))


def test_npz_of_inputs(tmp_path):
    x = np.random.default_rng(0).standard_normal((4, 1, 8, 8))
    np.savez(tmp_path / "d.npz", x=x, labels=np.arange(4), accuracy=np.float64(1))
    found = [(a, b.tolist()) for a, b in open_dataset(tmp_path / "d.npz", GREY).batches(3)]
    assert [b for _, b in found] == [[0, 1, 2], [3]]
    np.testing.assert_allclose(np.concatenate([a for a, _ in found]), x, rtol=1e-6)


def test_npz_of_vectors(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.ones((2, 5)), y=np.arange(2))
    spec = InputSpec("z", 0, TensorType((5,)))
    assert next(open_dataset(tmp_path / "d.npz", spec).batches(8))[0].shape == (2, 5)


@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_npz_of_colour_pixels(tmp_path, order):
    pixels = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), np.uint8)
    stored = pixels if order == "NHWC" else pixels.transpose(0, 3, 1, 2)
    np.savez(tmp_path / "d.npz", images=stored, labels=[0, 1, 2])
    x, _ = next(open_dataset(tmp_path / "d.npz", COLOUR).batches(3))
    np.testing.assert_allclose(x, pixels.transpose(0, 3, 1, 2) / 127.5 - 1, atol=1e-5)


@pytest.mark.parametrize(("classes", "marks"), [(10, 1), (100, 2)])
def test_cifar_binary(tmp_path, classes, marks):
    planes = np.random.default_rng(3).integers(0, 256, (5, 3072), np.uint8)
    labels = np.array([0, 9, 5, 5, 1])
    records = np.concatenate([*[labels[:, None]] * marks, planes], axis=1).astype(np.uint8)
    name = "test_batch.bin" if classes == 10 else "test.bin"
    (tmp_path / name).write_bytes(records.tobytes())
    (tmp_path / ("data_batch_1.bin" if classes == 10 else "train.bin")).write_bytes(b"not looked at")
    for path in (tmp_path, tmp_path / name):
        data = open_dataset(path, COLOUR, classes)
        assert data.labels.tolist() == labels.tolist()
        x = np.concatenate([x for x, _ in data.batches(2)])
        np.testing.assert_allclose(x, planes.reshape(5, 3, 32, 32) / 127.5 - 1, atol=1e-5)


def save_pictures(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[i]).save(folder / name)


def test_pictures_named_by_class(tmp_path):
    save_pictures(tmp_path, [f"digit_{i:02}_{label}.png" for i, label in enumerate(LABELS)])
    check_grey(open_dataset(tmp_path, GREY, 10))


def test_pictures_listed(tmp_path):
    save_pictures(tmp_path, [f"{i}.png" for i in range(7)])
    lines = [f"{i}.png,{label}" for i, label in enumerate(LABELS)]
    (tmp_path / "labels.csv").write_text("# file,label\n\n" + "\n".join(lines))
    check_grey(open_dataset(tmp_path, GREY, 10))


@pytest.mark.parametrize(
    ("folders", "classes", "names", "expected"),
    [
        (["7", "3"], 10, None, [3, 7]),
        (["ship", "Cat"], 10, ["plane", "cat", "ship"], [1, 2]),
        (["n02", "n01"], 2, None, [0, 1]),
        (["n02", "n01"], None, None, [0, 1]),
    ],
)
def test_class_folders(tmp_path, folders, classes, names, expected):
    save_pictures(tmp_path, [f"{f}/p.png" for f in folders])
    assert sorted(open_dataset(tmp_path, GREY, classes, names).labels.tolist()) == expected


def test_free_inputs_come_one_by_one(tmp_path):
    for i, size in enumerate([(4, 5), (6, 7)]):
        Image.new("L", size).save(tmp_path / f"p{i}_0.png")
    free = InputSpec("image", 0, TensorType((1, 8, 8)), free=(True, True))
    assert [x.shape for x, _ in open_dataset(tmp_path, free).batches(8)] == [(1, 1, 5, 4), (1, 1, 7, 6)]


def test_limit(tmp_path):
    np.savez(tmp_path / "d.npz", x=PIXELS, labels=LABELS)
    sizes = [len(y) for _, y in open_dataset(tmp_path / "d.npz", GREY).batches(2, limit=5)]
    assert sizes == [2, 2, 1]


class Malice:
    def __reduce__(self):
        return print, ("ran",)


def zipped_npy(shape, dtype="|u1"):
    """An .npz whose header claims a shape that its bytes do not fill."""
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(118) + b"\n"
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.npy", body + b"1234")
        archive.writestr("labels.npy", body)
    return out.getvalue()


def cut(data):
    return data[: len(data) // 2]


def npz(save=np.savez_compressed, **arrays):
    out = io.BytesIO()
    save(out, **arrays)
    return out.getvalue()


BAD_FILES = {
    "empty": ("d.npz", b"", "bad-data"),
    "text": ("d.txt", b"hello, world", "bad-data"),
    "cut npz": ("d.npz", cut(npz(x=PIXELS, labels=LABELS)), "bad-data"),
    "damaged npz": (
        "d.npz",
        npz(np.savez, x=PIXELS, labels=LABELS).replace(PIXELS.tobytes(), bytes(PIXELS.size)),
        "bad-data",
    ),
    "no labels": ("d.npz", npz(x=PIXELS), "bad-data"),
    "no images": ("d.npz", npz(labels=LABELS), "bad-data"),
    "fewer labels": ("d.npz", npz(x=PIXELS, labels=LABELS[:3]), "bad-data"),
    "float labels": ("d.npz", npz(x=PIXELS, labels=LABELS / 2), "bad-data"),
    "labels beyond": ("d.npz", npz(x=PIXELS, labels=LABELS + 7), "bad-labels"),
    "labels below": ("d.npz", npz(x=PIXELS, labels=LABELS - 2), "bad-labels"),
    "wrong shape": ("d.npz", npz(x=np.zeros((7, 1, 8, 9)), labels=LABELS), "bad-data"),
    "no images at all": ("d.npz", npz(x=PIXELS[:0], labels=LABELS[:0]), "bad-data"),
    "pickled array": ("d.npz", npz(x=np.array([Malice()] * 7), labels=LABELS), "bad-data"),
    "lying npz": ("d.npz", zipped_npy((10**13,)), "bad-data"),
    "pickle": ("test_batch", pickle.dumps({"data": Malice()}), "unsafe-data"),
    "cut idx": ("t10k-images-idx3-ubyte", cut(idx(PIXELS)), "bad-data"),
    "long idx": ("t10k-images-idx3-ubyte", idx(PIXELS) + b"x", "bad-data"),
    "lying idx": ("t10k-images-idx3-ubyte", b"\0\0\x08\x03" + b"\xff" * 12, "data-too-large"),
    "cut gz": ("t10k-images-idx3-ubyte.gz", cut(gzip.compress(idx(PIXELS))), "bad-data"),
    "junk gz": ("t10k-images-idx3-ubyte.gz", b"\x1f\x8b" + b"junk" * 9, "bad-data"),
    "idx without labels": ("t10k-images-idx3-ubyte", idx(PIXELS), "no-data"),
    "half a record": ("test_batch.bin", b"\5" * 3000, "bad-data"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_input_errors(tmp_path, capsys, kind):
    name, content, code = BAD_FILES[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as e:
        open_dataset(tmp_path / name, GREY, 10)
    assert e.value.code == code and e.value.path
    assert "ran" not in capsys.readouterr().out


def test_pickled_cifar_folder_is_named(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError) as e:
        open_dataset(tmp_path, COLOUR, 10)
    assert e.value.code == "unsafe-data" and "binary version" in e.value.hint


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([], "bad-data"),
        (["nolabel.png"], "bad-labels"),
        (["cat_dog.png"], "bad-labels"),
        (["n01/p.png", "n02/p.png", "n03/p.png"], "bad-labels"),
        (["99/p.png"], "bad-labels"),
    ],
)
def test_bad_folders(tmp_path, files, code):
    save_pictures(tmp_path, files)
    with pytest.raises(InputError) as e:
        open_dataset(tmp_path, GREY, 10)
    assert e.value.code == code


@pytest.mark.parametrize("line", ["p.png", "../p.png 1", "/etc/passwd 1", "p.png elephant"])
def test_bad_listings(tmp_path, line):
    (tmp_path / "labels.txt").write_text(line)
    with pytest.raises(InputError):
        open_dataset(tmp_path, GREY, 10)


def test_nearest_class_is_suggested(tmp_path):
    save_pictures(tmp_path, ["a_elefant.png"])
    with pytest.raises(InputError) as e:
        open_dataset(tmp_path, GREY, 2, ["elephant", "mouse"])
    assert "did you mean elephant" in e.value.hint


def test_missing(tmp_path):
    with pytest.raises(InputError) as e:
        open_dataset(tmp_path / "nothing", GREY)
    assert e.value.code == "no-data"
