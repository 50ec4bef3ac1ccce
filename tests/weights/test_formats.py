"""Every format gives the same float32 tensors, by content and not by name."""

import zipfile

import numpy as np
import pytest
import weight_files as wf

from netdsl.errors import WeightsError
from netdsl.weights import load

FORMATS = list(wf.every_format(wf.sample()))


def same(found, wanted):
    names = [n for n in wanted if not n.endswith("num_batches_tracked")]
    assert [n for n in found if not n.endswith("num_batches_tracked")] == names
    for name in names:
        assert found[name].dtype == np.float32 and found[name].flags.c_contiguous and found[name].flags.aligned
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("suffix", [None, ".bin", ".dat"])
def test_formats_by_content(tmp_path, name, suffix):
    tensors = wf.sample()
    path = wf.write(tmp_path, name if suffix is None else "weights" + suffix, wf.every_format(tensors)[name])
    same(load(path), tensors)
    same(load(str(path)), tensors)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32(tmp_path, name, dtype):
    tensors = {k: v.astype(dtype) for k, v in wf.sample().items() if v.shape}
    found = load(wf.write(tmp_path, name, wf.every_format(tensors)[name]))
    same(found, {k: v.astype(np.float32) for k, v in tensors.items()})


def test_bfloat16(tmp_path):
    values = np.array([1.0, -2.5, 0.0078125, 3e38, np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = '{"w": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}'
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    found = load(wf.write(tmp_path, "a.safetensors", wf.raw_safetensors(header, bits.tobytes())))
    np.testing.assert_array_equal(found["w"], expected)
    state = {"w": wf.tensor("0", bits.view(np.int16), type="BFloat16Storage")}
    for content in (wf.zip_checkpoint(state, {"0": bits}), wf.old_checkpoint(state, {"0": bits})):
        np.testing.assert_array_equal(load(wf.write(tmp_path, "a.pth", content))["w"], expected)


@pytest.mark.parametrize("name", FORMATS)
def test_nan_infinity_empty_and_whole_numbers(tmp_path, name):
    tensors = {"a": np.array([np.nan, np.inf, -np.inf, 1e-45], np.float32), "e": np.zeros((0, 3), np.float32)}
    tensors["n"] = np.array([1, -2], np.int64)
    found = load(wf.write(tmp_path, name, wf.every_format(tensors)[name]))
    for key, array in tensors.items():
        assert found[key].shape == array.shape
        np.testing.assert_array_equal(found[key], array)


def test_too_large_float64_becomes_infinite_without_warning(tmp_path):
    found = load(wf.write(tmp_path, "a.npz", wf.npz_bytes({"w": np.array([1e300])})))
    assert np.isinf(found["w"][0])


def test_float32_of_safetensors_is_not_copied(tmp_path):
    found = load(wf.write(tmp_path, "a.safetensors", wf.safetensors_bytes({"w": np.arange(4096, dtype=np.float32)})))
    assert np.shares_memory(found["w"], found["w"]) and not found["w"].flags.writeable


def test_fortran_order_and_big_endian_npz(tmp_path):
    array = np.arange(6, dtype=">f8").reshape(2, 3)
    found = load(wf.write(tmp_path, "a.npz", wf.npz_bytes({"f": np.asfortranarray(array), "c": array})))
    for key in "fc":
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == np.float32 and found[key].flags.c_contiguous


@pytest.mark.parametrize("writer", [wf.zip_checkpoint, wf.old_checkpoint])
@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
def test_nested_checkpoints(tmp_path, writer, key):
    tensors = wf.sample()
    wrapped = {"module." + name: call for name, call in wf.described(tensors).items()}
    ordered = wf.opcodes(wf.Call(wf.Global("collections", "OrderedDict"), ()))
    ordered += b"(" + b"".join(wf.opcodes(k) + wf.opcodes(v) for k, v in wrapped.items()) + b"u"
    ordered += wf.opcodes({"_metadata": {"": {"version": 1}}}) + b"b"  # what torch.nn.Module.state_dict attaches
    number = wf.Call(
        wf.Global("numpy.core.multiarray", "scalar"),
        (wf.Call(wf.Global("numpy", "dtype"), ("f8", False, True)), wf.Call(wf.Global("_codecs", "encode"), ("x",))),
    )
    state = {"epoch": 3, "best": 0.5, "best_top1": number, key: ordered, "optimizer": {"state": {0: {"step": 1}}}}
    found = load(wf.write(tmp_path, "a.pth", writer(state, wf.storages(tensors))))
    same(found, tensors)
    assert "bn1.num_batches_tracked" not in found


@pytest.mark.parametrize("writer", [wf.zip_checkpoint, wf.old_checkpoint])
def test_shared_storages_views_and_strides(tmp_path, writer):
    base = np.arange(24, dtype=np.float32)
    state = {
        "whole": wf.tensor("0", base, shape=(4, 6), strides=(6, 1)),
        "turned": wf.tensor("0", base, shape=(6, 4), strides=(1, 6)),
        "column": wf.tensor("0", base, shape=(4,), strides=(6,), offset=2),
        "repeated": wf.tensor("0", base, shape=(3, 2), strides=(0, 1), offset=22),
        "scalar": wf.tensor("0", base, shape=(), strides=(), offset=23),
        "parameter": wf.Call(wf.Global("torch._utils", "_rebuild_parameter"), (wf.tensor("0", base), True, None)),
        "size": wf.tensor("0", base, shape=wf.Call(wf.Global("torch", "Size"), ((24,),))),
    }
    found = load(wf.write(tmp_path, "a.pth", writer(state, {"0": base})))
    np.testing.assert_array_equal(found["whole"], base.reshape(4, 6))
    np.testing.assert_array_equal(found["turned"], base.reshape(4, 6).T)
    np.testing.assert_array_equal(found["column"], base[2::6])
    np.testing.assert_array_equal(found["repeated"], [[22, 23]] * 3)
    assert found["scalar"] == 23 and found["scalar"].shape == ()
    np.testing.assert_array_equal(found["parameter"], base)
    np.testing.assert_array_equal(found["size"], base)
    assert found["turned"].flags.c_contiguous


def test_view_of_a_storage_in_the_older_format(tmp_path):
    base = np.arange(10, dtype=np.float32)
    state = {"w": wf.tensor("0", base, view=[("v", 4, 3)], shape=(2,), strides=(1,), offset=1)}
    found = load(wf.write(tmp_path, "a.pth", wf.old_checkpoint(state, {"0": base})))
    np.testing.assert_array_equal(found["w"], [5, 6])
    for view in [("v", 4, 7), ("v", -1, 2), ("v", 4), "v"]:
        state = {"w": wf.tensor("0", base, view=[view], shape=(1,), strides=(1,))}
        with pytest.raises(WeightsError, match="view of a tensor storage"):
            load(wf.write(tmp_path, "b.pth", wf.old_checkpoint(state, {"0": base})))


def test_any_root_folder(tmp_path):
    tensors = wf.sample()
    content = wf.zip_checkpoint(wf.described(tensors), wf.storages(tensors), root="resnet18-5c106cde")
    same(load(wf.write(tmp_path, "a.pth", content)), tensors)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x93NUMPY" + b"x" * 99, "single NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x1f\x8b\x08" + b"x" * 99, "gzip"),
        (b"hello, world, this is text", "unknown content"),
        (b"x", "unknown content"),
    ],
)
def test_other_files(tmp_path, content, words):
    for name in ("a.dat", "a.pth") if content[:1] not in (b"h", b"x") else ("a.dat",):
        with pytest.raises(WeightsError, match=words) as caught:
            load(wf.write(tmp_path, name, content))
        assert caught.value.path.endswith(name) and caught.value.code in ("weights-format", "weights-truncated")


def test_missing_file_folder_and_pipe(tmp_path):
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "none.npz")
    assert caught.value.code == "weights-missing-file" and "none.npz" in str(caught.value)
    for bad in (tmp_path, "/dev/zero"):
        with pytest.raises(WeightsError, match="not a regular file"):
            load(bad)
    with pytest.raises(WeightsError) as caught:
        load("a\0b.npz")
    assert caught.value.code == "weights-unreadable"


def test_script_archive_and_compressed_checkpoint(tmp_path):
    tensors = wf.sample()
    content = wf.zip_checkpoint(wf.described(tensors), wf.storages(tensors), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed"):
        load(wf.write(tmp_path, "a.pth", content))
    path = wf.write(tmp_path, "script.pt", wf.zip_checkpoint({}, {}))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/constants.pkl", b"")
    with pytest.raises(WeightsError, match="TorchScript"):
        load(path)
