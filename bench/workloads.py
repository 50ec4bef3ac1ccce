"""The networks that are measured and tested, and how fast they are meant to be: one list for tests and benches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BATCHES = (1, 8)


@dataclass(frozen=True)
class Workload:
    """One network that ships.

    network   its name
    targets   by batch: the least ratio of the best peer's median time to netdsl's that is aimed at
    headline  whether it counts in the geometric mean
    batches   sizes that are measured; large pictures only one at a time
    """

    network: str
    targets: Mapping[int, float] = field(default_factory=lambda: {1: 1.0, 8: 1.0})
    headline: bool = False
    batches: tuple[int, ...] = BATCHES


MEAN_TARGETS = {1: 1.5, 8: 1.6}  # of the geometric mean over the headline networks

_LENET, _ALEXNET, _VGG = {1: 2.0, 8: 2.0}, {1: 1.1, 8: 1.4}, {1: 1.5, 8: 2.0}
_RESNET, _BOTTLENECKS = {1: 1.6, 8: 1.8}, {1: 1.3, 8: 1.4}

WORKLOADS = (
    Workload("lenet5", _LENET, headline=True),
    Workload("alexnet", _ALEXNET, headline=True),
    Workload("vgg16_bn", _VGG, headline=True),
    Workload("resnet18", _RESNET, headline=True),
    Workload("resnet50", _BOTTLENECKS, headline=True),
    Workload("squeezenet1_1", {1: 1.2, 8: 1.3}, headline=True),
    Workload("mobilenet_v2", {1: 1.15, 8: 1.2}, headline=True),
    Workload("vgg11", _VGG),
    Workload("vgg11_bn", _VGG),
    Workload("vgg13", _VGG),
    Workload("vgg13_bn", _VGG),
    Workload("vgg16", _VGG),
    Workload("vgg19", _VGG),
    Workload("vgg19_bn", _VGG),
    Workload("resnet34", _RESNET),
    Workload("resnet101", _BOTTLENECKS),
    Workload("resnet152", _BOTTLENECKS),
    Workload("lenet5_mnist"),
    Workload("resnet20_cifar10"),
    Workload("resnet32_cifar10"),
    Workload("resnet44_cifar10"),
    Workload("resnet56_cifar10"),
    Workload("resnet110_cifar10"),
    Workload("nin"),
    Workload("googlenet"),
    Workload("squeezenet1_0"),
    Workload("squeezenet1_1_caffe"),
    Workload("mobilenet_v1"),
    Workload("efficientnet_lite0"),
    Workload("xception"),
    Workload("densenet121"),
    Workload("unet", batches=(1,)),
    Workload("dcgan_generator"),
    Workload("lapsrn_x4", batches=(1,)),
    Workload("kws_dscnn"),
    Workload("filters/box_blur"),
    Workload("filters/emboss"),
    Workload("filters/gaussian"),
    Workload("filters/identity"),
    Workload("filters/laplacian"),
    Workload("filters/sharpen"),
    Workload("filters/sobel"),
)

HEADLINE = tuple(w for w in WORKLOADS if w.headline)
FAMILIES = tuple(w for w in WORKLOADS if not w.headline and min(w.targets.values()) > 1)  # of the headline networks
OTHERS = tuple(w for w in WORKLOADS if w not in HEADLINE + FAMILIES)
GROUPS = {"headline": HEADLINE, "families": FAMILIES, "others": OTHERS}


def workload(network: str) -> Workload:
    """The workload of a network that ships, or one with the targets of any other."""
    return next((w for w in WORKLOADS if w.network == network), Workload(network))


def chosen(names: str | None) -> tuple[Workload, ...]:
    """The workloads of a comma-separated list, or of one of GROUPS, or None for all."""
    if names is None:
        return WORKLOADS
    if names in GROUPS:
        return GROUPS[names]
    return tuple(workload(name.strip()) for name in names.split(",") if name.strip())
