"""The list of workloads: every network that ships, the headline ones with their targets."""

from __future__ import annotations

import pytest

from netdsl.graph import library
from workloads import BATCHES, HEADLINE, MEAN_TARGETS, WORKLOADS, chosen, workload


def test_every_network_that_ships_is_measured_once() -> None:
    assert sorted(w.network for w in WORKLOADS) == library.names()


def test_seven_headline_networks() -> None:
    assert [w.network for w in HEADLINE] == [
        "lenet5", "alexnet", "vgg16_bn", "resnet18", "resnet50", "squeezenet1_1", "mobilenet_v2",
    ]  # fmt: skip
    assert all(w.batches == BATCHES for w in HEADLINE)
    assert set(MEAN_TARGETS) == set(BATCHES)


@pytest.mark.parametrize("work", WORKLOADS, ids=lambda w: w.network)
def test_no_target_is_below_the_best_peer(work: object) -> None:
    assert all(target >= 1 for target in work.targets.values())


def test_choosing() -> None:
    assert chosen(None) == WORKLOADS and chosen("headline") == HEADLINE
    groups = [chosen(name) for name in ("headline", "families", "others")]
    assert sorted(w.network for group in groups for w in group) == sorted(w.network for w in WORKLOADS)
    assert workload("vgg11") in groups[1] and workload("resnet152") in groups[1] and workload("xception") in groups[2]
    assert chosen("resnet18, my.net") == (workload("resnet18"), workload("my.net"))
    assert workload("resnet18").headline and not workload("my.net").headline
