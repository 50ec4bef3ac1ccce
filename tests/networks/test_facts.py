"""Every shipped network against facts from an independent engine: parameters, MACs, names and shapes of weights."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from golden_tensors import digest
from netdsl.graph.build import build
from netdsl.graph.library import folder, names

GOLDEN = Path(__file__).parent.parent / "golden" / "networks"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
FILTERS = ["box_blur", "emboss", "gaussian", "identity", "laplacian", "sharpen", "sobel"]
SHIPPED = [*FACTS, *(f"filters/{f}" for f in FILTERS)]

SHARED = os.environ.get("NETDSL_SHARED")
needs_shared = pytest.mark.skipif(not SHARED, reason="NETDSL_SHARED does not name the folder with reference data")
REFERENCE = Path(SHARED or ".") / "reference"
KNOWN = json.loads((REFERENCE / "networks.json").read_text()) if SHARED else {}


def text(name):
    return (folder() / f"{name}.net").read_text()


def test_the_list_is_complete():
    assert sorted(SHIPPED) == names()


@pytest.mark.parametrize("name", FACTS)
def test_parameters_macs_and_names(name):
    graph, facts = build(name), FACTS[name]
    assert graph.parameters == facts["params"]
    assert graph.macs == facts["macs"]
    assert len(graph.tensors) == facts["tensors"]
    assert digest(graph.tensors) == facts["digest"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_is_short_cites_its_source_and_states_facts(name):
    lines = text(name).splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 135
    assert lines[0] == "netdsl 1" and lines[1].startswith("# ")
    expect = next(line for line in lines if line.strip().startswith("expect "))
    assert "params=" in expect and "macs=" in expect and "out=" in expect.replace("x4=", "out=")
    assert build(name).name == name.split("/")[-1]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_false_fact_is_noticed(name):
    false = re.sub(r"params=([\d_]+)", lambda m: f"params={int(m[1]) + 1}", text(name))
    with pytest.raises(Exception) as e:
        build(false)
    assert e.value.code.startswith("expect")


def test_resnet152_fits_a_page():
    assert len(text("resnet152").splitlines()) < 30


@pytest.mark.parametrize("name", [n for n in SHIPPED if "labels=" in text(n)])
def test_there_is_a_label_for_every_class(name):
    graph = build(name)
    labels = Path(graph.labels).read_text().splitlines()
    assert len(labels) == len(set(labels)) == graph.nodes[graph.outputs[0].node].type.elements


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "googlenet", "densenet121", "resnet20_cifar10", "xception"])
def test_the_number_of_classes_is_a_parameter(name):
    graph = build(name, params={"classes": 7})
    assert graph.nodes[graph.outputs[0].node].type.shape == (7,)


def test_published_accuracies_are_of_shipped_networks():
    published = json.loads((folder() / "published.json").read_text())
    assert set(published) <= set(FACTS)
    for entry in published.values():
        assert 50 < entry["acc1"] < 100 and entry["source"] and entry["data"]


def test_the_goldens_are_small():
    assert sum(p.stat().st_size for p in GOLDEN.iterdir()) < 1.5e6


@needs_shared
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_names_and_shapes_of_the_published_files(name):
    graph = build(name)
    stored = json.loads((REFERENCE / "state_dicts" / f"{name}.json").read_text())
    assert {k: tuple(v) for k, v in stored.items()} == graph.tensors
    known = KNOWN[name]
    assert (graph.parameters, graph.macs, len(graph.tensors)) == (known["params"], known["macs"], known["tensors"])
    assert graph.inputs[0].type.shape == tuple(known["input"])


@needs_shared
@pytest.mark.parametrize("name", sorted(n for n, known in KNOWN.items() if "weights" in known))
def test_published_weights_and_accuracies(name):
    weights, spec = KNOWN[name]["weights"], build(name).weights
    assert spec.url == weights["url"]
    assert spec.sha256 == re.search(r"-([0-9a-f]{8})\.pth$", weights["url"])[1]
    published = json.loads((folder() / "published.json").read_text())[name]
    assert (published["acc1"], published["acc5"]) == (weights["acc1"], weights["acc5"])


@needs_shared
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_goldens_agree_with_another_engine(name):
    wanted = np.load(REFERENCE / "golden_logits.npz")[name]
    found = np.load(GOLDEN / f"{name}.npz")["out0"]
    assert np.abs(found - wanted).max() < 1e-6 * np.abs(wanted).max()
