"""Every shipped network once more, in plain PyTorch calls: the independent engine behind the goldens.

Nothing here reads a .net file or imports netdsl. A network is a function of a `Layers` and an input; `Layers` makes
each weight from its name when it is first used (so names, shapes, parameters and MACs are recorded on the way) and
calls torch.nn.functional in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from golden_tensors import golden_tensor

Act = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    return x


class Layers:
    """Layers by weight name, in float64; `shapes`, `params` and `macs` grow as they are called on a batch."""

    def __init__(self, eps: float = 1e-5) -> None:
        self.eps = eps
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.params = 0
        self.macs = 0

    def tensor(self, name: str, *shape: int) -> Tensor:
        self.shapes[name] = shape
        value = torch.from_numpy(golden_tensor(name, shape))
        if not name.split(".")[-1].startswith("running"):
            self.params += value.numel()
        return value.double()

    def conv(self, x, name, k, size=3, stride=1, pad=0, groups=1, bias=True, same=False):
        """Convolution; size an int or (R, S); same pads as TensorFlow does."""
        r, s = size if isinstance(size, tuple) else (size, size)
        weight = self.tensor(f"{name}.weight", k, x.shape[1] // groups, r, s)
        b = self.tensor(f"{name}.bias", k) if bias else None
        if same:
            x = self.same(x, (r, s), stride)
        y = F.conv2d(x, weight, b, stride, pad, 1, groups)
        self.macs += y[0].numel() * weight[0].numel()
        return y

    def deconv(self, x, name, k, size=4, stride=2, pad=1, bias=False):
        weight = self.tensor(f"{name}.weight", x.shape[1], k, size, size)
        b = self.tensor(f"{name}.bias", k) if bias else None
        self.macs += x[0].numel() * weight[0].numel()
        return F.conv_transpose2d(x, weight, b, stride, pad)

    def norm(self, x, name):
        c = x.shape[1]
        weight, bias = self.tensor(f"{name}.weight", c), self.tensor(f"{name}.bias", c)
        mean, var = self.tensor(f"{name}.running_mean", c), self.tensor(f"{name}.running_var", c)
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)

    def dense(self, x, name, k):
        weight = self.tensor(f"{name}.weight", k, x.shape[1])
        self.macs += weight.numel()
        return F.linear(x, weight, self.tensor(f"{name}.bias", k))

    def unit(self, x, conv, norm, k, size=3, act: Act = F.relu, **options):
        """Convolution without bias, batch norm, activation."""
        return act(self.norm(self.conv(x, conv, k, size, bias=options.pop("bias", False), **options), norm))

    @staticmethod
    def same(x, size, stride, value=0.0):
        """Padding to ceil(in / stride) output positions, the odd cell at the end."""
        pads = []
        for length, kernel in zip(x.shape[:1:-1], size[::-1], strict=True):
            total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads, value=value)


def lenet5(n, x):
    for i, k in ((1, 6), (2, 16)):
        x = F.max_pool2d(torch.tanh(n.conv(x, f"conv.conv{i}", k, 5)), 2)
    x = x.flatten(1)
    x = torch.tanh(n.dense(x, "fc.fc1", 120))
    x = torch.tanh(n.dense(x, "fc.fc2", 84))
    return n.dense(x, "fc.fc3", 10)


def lenet5_mnist(n, x):
    x = F.max_pool2d(F.relu(n.conv(x, "convnet.c1", 6, 5)), 2)
    x = F.max_pool2d(F.relu(n.conv(x, "convnet.c3", 16, 5)), 2)
    x = F.relu(n.conv(x, "convnet.c5", 120, 5)).flatten(1)
    return F.log_softmax(n.dense(F.relu(n.dense(x, "fc.f6", 84)), "fc.f7", 10), 1)


def alexnet(n, x):
    table = [(0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1), (10, 256, 3, 1, 1)]
    for i, k, size, stride, pad in table:
        x = F.relu(n.conv(x, f"features.{i}", k, size, stride, pad))
        if i in (0, 3, 10):
            x = F.max_pool2d(x, 3, 2)
    x = F.adaptive_avg_pool2d(x, 6).flatten(1)
    x = F.relu(n.dense(F.relu(n.dense(x, "classifier.1", 4096)), "classifier.4", 4096))
    return n.dense(x, "classifier.6", 1000)


def vgg(depths, norm):
    def run(n, x):
        i = 0
        for k, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
            for _ in range(depth):
                x = n.conv(x, f"features.{i}", k, 3, pad=1)
                x = F.relu(n.norm(x, f"features.{i + 1}") if norm else x)
                i += 3 if norm else 2
            x = F.max_pool2d(x, 2)
            i += 1
        x = F.adaptive_avg_pool2d(x, 7).flatten(1)
        x = F.relu(n.dense(F.relu(n.dense(x, "classifier.0", 4096)), "classifier.3", 4096))
        return n.dense(x, "classifier.6", 1000)

    return run


def resnet(depths, deep):
    def block(n, x, at, k, stride):
        out = 4 * k if deep else k
        if deep:
            y = n.unit(x, f"{at}.conv1", f"{at}.bn1", k, 1)
            y = n.unit(y, f"{at}.conv2", f"{at}.bn2", k, 3, stride=stride, pad=1)
            y = n.unit(y, f"{at}.conv3", f"{at}.bn3", out, 1, identity)
        else:
            y = n.unit(x, f"{at}.conv1", f"{at}.bn1", k, 3, stride=stride, pad=1)
            y = n.unit(y, f"{at}.conv2", f"{at}.bn2", k, 3, identity, pad=1)
        if stride != 1 or x.shape[1] != out:
            x = n.unit(x, f"{at}.downsample.0", f"{at}.downsample.1", out, 1, identity, stride=stride)
        return F.relu(x + y)

    def run(n, x):
        x = F.max_pool2d(n.unit(x, "conv1", "bn1", 64, 7, stride=2, pad=3), 3, 2, 1)
        for stage, depth in enumerate(depths):
            for i in range(depth):
                x = block(n, x, f"layer{stage + 1}.{i}", 64 << stage, 2 if stage and not i else 1)
        return n.dense(x.mean((2, 3)), "fc", 1000)

    return run


def cifar_resnet(depth):
    def block(n, x, at, k, stride):
        y = n.unit(x, f"{at}.conv1", f"{at}.bn1", k, 3, stride=stride, pad=1)
        y = n.unit(y, f"{at}.conv2", f"{at}.bn2", k, 3, identity, pad=1)
        if stride != 1:
            extra = (k - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
        return F.relu(x + y)

    def run(n, x):
        x = n.unit(x, "conv1", "bn1", 16, pad=1)
        for stage in range(3):
            for i in range((depth - 2) // 6):
                x = block(n, x, f"layer{stage + 1}.{i}", 16 << stage, 2 if stage and not i else 1)
        return n.dense(x.mean((2, 3)), "linear", 10)

    return run


def nin(n, x):
    for b, (size, widths) in enumerate([(5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192, 10))]):
        for i, k in enumerate(widths):
            x = F.relu(n.conv(x, f"block{b + 1}.{2 * i}", k, size if i == 0 else 1, pad=size // 2 if i == 0 else 0))
        if b == 0:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        elif b == 1:
            x = F.avg_pool2d(x, 3, 2, ceil_mode=True)
    return x.mean((2, 3))


def googlenet(n, x):
    n.eps = 1e-3

    def unit(x, at, k, size=1, **options):
        return n.unit(x, f"{at}.conv", f"{at}.bn", k, size, **options)

    def pool(x, size=3):
        return F.max_pool2d(x, size, 2, ceil_mode=True)

    def inception(x, at, one, r3, three, r5, five, last):
        a = unit(x, f"{at}.branch1", one)
        b = unit(unit(x, f"{at}.branch2.0", r3), f"{at}.branch2.1", three, 3, pad=1)
        c = unit(unit(x, f"{at}.branch3.0", r5), f"{at}.branch3.1", five, 3, pad=1)
        d = unit(F.max_pool2d(x, 3, 1, 1), f"{at}.branch4.1", last)
        return torch.cat([a, b, c, d], 1)

    x = pool(unit(x, "conv1", 64, 7, stride=2, pad=3))
    x = pool(unit(unit(x, "conv2", 64), "conv3", 192, 3, pad=1))
    x = inception(x, "inception3a", 64, 96, 128, 16, 32, 32)
    x = pool(inception(x, "inception3b", 128, 128, 192, 32, 96, 64))
    x = inception(x, "inception4a", 192, 96, 208, 16, 48, 64)
    x = inception(x, "inception4b", 160, 112, 224, 24, 64, 64)
    x = inception(x, "inception4c", 128, 128, 256, 24, 64, 64)
    x = inception(x, "inception4d", 112, 144, 288, 32, 64, 64)
    x = pool(inception(x, "inception4e", 256, 160, 320, 32, 128, 128), 2)
    x = inception(x, "inception5a", 256, 160, 320, 32, 128, 128)
    x = inception(x, "inception5b", 384, 192, 384, 48, 128, 128)
    return n.dense(x.mean((2, 3)), "fc", 1000)


def fire(n, x, at, s, e, squeeze="squeeze"):
    x = F.relu(n.conv(x, f"{at}.{squeeze}", s, 1))
    a, b = n.conv(x, f"{at}.expand1x1", e, 1), n.conv(x, f"{at}.expand3x3", e, 3, pad=1)
    return F.relu(torch.cat([a, b], 1))


def squeezenet(stem, pools, fires):
    def run(n, x):
        x = F.relu(n.conv(x, "features.0", *stem, stride=2))
        widths = iter([(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)])
        for i in range(2, max(fires) + 1):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True) if i in pools else fire(n, x, f"features.{i}", *next(widths))
        return F.relu(n.conv(x, "classifier.1", 1000, 1)).mean((2, 3))

    return run


def squeezenet1_1_caffe(n, x):
    x = F.max_pool2d(F.relu(n.conv(x, "conv1", 64, 3, 2)), 3, 2, ceil_mode=True)
    widths = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    for i, (s, e) in enumerate(widths):
        x = fire(n, x, f"fire{i + 2}", s, e, "squeeze1x1")
        if i in (1, 3):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    return F.relu(n.conv(x, "conv10", 1000, 1, pad=1)).mean((2, 3))


def mobilenet_v1(n, x):
    x = n.unit(x, "conv1", "bn1", 32, stride=2, pad=1)
    table = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for i, (k, stride) in enumerate(table):
        at, c = f"blocks.{i}", x.shape[1]
        x = n.unit(x, f"{at}.depthwise", f"{at}.bn1", c, stride=stride, pad=1, groups=c)
        x = n.unit(x, f"{at}.pointwise", f"{at}.bn2", k, 1)
    return n.dense(x.mean((2, 3)), "fc", 1000)


def mobilenet_v2(n, x):
    x = n.unit(x, "features.0.0", "features.0.1", 32, 3, F.relu6, stride=2, pad=1)
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    steps = [(t, k, s if i == 0 else 1) for t, k, count, s in table for i in range(count)]
    for i, (expand, k, stride) in enumerate(steps, 1):
        y, at, hidden = x, f"features.{i}.conv", expand * x.shape[1]
        if expand != 1:
            y = n.unit(y, f"{at}.0.0", f"{at}.0.1", hidden, 1, F.relu6)
        j = int(expand != 1)
        y = n.unit(y, f"{at}.{j}.0", f"{at}.{j}.1", hidden, 3, F.relu6, stride=stride, pad=1, groups=hidden)
        y = n.unit(y, f"{at}.{j + 1}", f"{at}.{j + 2}", k, 1, identity)
        x = x + y if stride == 1 and x.shape[1] == k else y
    x = n.unit(x, "features.18.0", "features.18.1", 1280, 1, F.relu6)
    return n.dense(x.mean((2, 3)), "classifier.1", 1000)


def efficientnet_lite0(n, x):
    n.eps = 1e-3
    x = n.unit(x, "_conv_stem", "_bn0", 32, 3, F.relu6, stride=2, same=True)
    table = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
             (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]  # fmt: skip
    steps = [(t, k, s if i == 0 else 1, size) for t, k, count, s, size in table for i in range(count)]
    for i, (expand, k, stride, size) in enumerate(steps):
        y, at, hidden = x, f"_blocks.{i}", expand * x.shape[1]
        if expand != 1:
            y = n.unit(y, f"{at}._expand_conv", f"{at}._bn0", hidden, 1, F.relu6)
        options = {"stride": stride, "groups": hidden, "same": True}
        y = n.unit(y, f"{at}._depthwise_conv", f"{at}._bn1", hidden, size, F.relu6, **options)
        y = n.unit(y, f"{at}._project_conv", f"{at}._bn2", k, 1, identity)
        x = x + y if stride == 1 and x.shape[1] == k else y
    x = n.unit(x, "_conv_head", "_bn1", 1280, 1, F.relu6)
    return n.dense(x.mean((2, 3)), "_fc", 1000)


def xception(n, x):
    n.eps = 1e-3

    def separable(x, at, k):
        c = x.shape[1]
        x = n.conv(x, f"{at}.sep.depthwise", c, 3, groups=c, bias=False, same=True)
        return n.unit(x, f"{at}.sep.pointwise", f"{at}.bn", k, 1, identity)

    def down(x, at, first, k, active=True):
        y = separable(F.relu(x) if active else x, f"{at}.unit1", first)
        y = separable(F.relu(y), f"{at}.unit2", k)
        y = F.max_pool2d(n.same(y, (3, 3), 2, float("-inf")), 3, 2)
        return y + n.unit(x, f"{at}.shortcut.0", f"{at}.shortcut.1", k, 1, identity, stride=2)

    x = n.unit(n.unit(x, "conv1", "bn1", 32, stride=2), "conv2", "bn2", 64)
    x = down(x, "entry.0", 128, 128, active=False)
    x = down(down(x, "entry.1", 256, 256), "entry.2", 728, 728)
    for i in range(8):
        y = x
        for j in (1, 2, 3):
            y = separable(F.relu(y), f"middle.{i}.unit{j}", 728)
        x = x + y
    x = down(x, "exit.0", 728, 1024)
    x = F.relu(separable(F.relu(separable(x, "exit.1", 1536)), "exit.3", 2048))
    return n.dense(x.mean((2, 3)), "fc", 1000)


def densenet121(n, x):
    x = F.max_pool2d(n.unit(x, "features.conv0", "features.norm0", 64, 7, stride=2, pad=3), 3, 2, 1)
    for b, depth in enumerate((6, 12, 24, 16), 1):
        for i in range(1, depth + 1):
            at = f"features.denseblock{b}.denselayer{i}"
            y = n.conv(F.relu(n.norm(x, f"{at}.norm1")), f"{at}.conv1", 128, 1, bias=False)
            y = n.conv(F.relu(n.norm(y, f"{at}.norm2")), f"{at}.conv2", 32, 3, pad=1, bias=False)
            x = torch.cat([x, y], 1)
        if b < 4:
            at = f"features.transition{b}"
            x = n.conv(F.relu(n.norm(x, f"{at}.norm")), f"{at}.conv", x.shape[1] // 2, 1, bias=False)
            x = F.avg_pool2d(x, 2)
    return n.dense(F.relu(n.norm(x, "features.norm5")).mean((2, 3)), "classifier", 1000)


def unet(n, x):
    def double(x, at, k):
        return F.relu(n.conv(F.relu(n.conv(x, f"{at}.conv1", k)), f"{at}.conv2", k))

    kept = {}
    for i in range(1, 6):
        x = kept[i] = double(F.max_pool2d(x, 2) if i > 1 else x, f"enc{i}", 32 << i)
    for i in range(1, 5):
        k = x.shape[1] // 2
        x, skip = n.deconv(x, f"up{i}", k, 2, 2, 0, bias=True), kept[5 - i]
        cut = (skip.shape[2] - x.shape[2]) // 2
        x = double(torch.cat([skip[:, :, cut : cut + x.shape[2], cut : cut + x.shape[3]], x], 1), f"dec{i}", k)
    return n.conv(x, "head", 2, 1)


def dcgan_generator(n, x):
    x = F.relu(n.norm(n.deconv(x, "main.0", 1024, 4, 1, 0), "main.1"))
    for i, k in ((3, 512), (6, 256), (9, 128)):
        x = F.relu(n.norm(n.deconv(x, f"main.{i}", k), f"main.{i + 1}"))
    return torch.tanh(n.deconv(x, "main.12", 3))


def lapsrn_x4(n, x):
    def features(x, at):
        for i in range(10):
            x = F.leaky_relu(n.conv(x, f"{at}.0.cov_block.{2 * i}", 64, pad=1, bias=False), 0.2)
        return F.leaky_relu(n.deconv(x, f"{at}.0.cov_block.20", 64), 0.2)

    f1 = features(F.leaky_relu(n.conv(x, "conv_input", 64, pad=1, bias=False), 0.2), "convt_F1")
    x2 = n.deconv(x, "convt_I1", 1) + n.conv(f1, "convt_R1", 1, pad=1, bias=False)
    f2 = features(f1, "convt_F2")
    return x2, n.deconv(x2, "convt_I2", 1) + n.conv(f2, "convt_R2", 1, pad=1, bias=False)


def kws_dscnn(n, x):
    n.eps = 1e-3
    x = n.unit(x, "conv1", "bn1", 64, (10, 4), stride=2, same=True, bias=True)
    for i in range(1, 5):
        x = n.unit(x, f"block{i}.depthwise", f"block{i}.bn1", 64, groups=64, pad=1, bias=True)
        x = n.unit(x, f"block{i}.pointwise", f"block{i}.bn2", 64, 1, bias=True)
    return n.dense(x.mean((2, 3)), "fc", 12)


IMAGE = (3, 224, 224)
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

# name: (forward, input shape that its parameters and MACs are stated for, smaller input of the golden or None)
NETS = {
    "lenet5": (lenet5, (1, 32, 32), None),
    "lenet5_mnist": (lenet5_mnist, (1, 32, 32), None),
    "alexnet": (alexnet, IMAGE, None),
    **{f"vgg{d}{'_bn' * bn}": (vgg(VGG[d], bn), IMAGE, None) for bn in (False, True) for d in VGG},
    **{f"resnet{d}": (resnet(RESNET[d], d >= 50), IMAGE, None) for d in RESNET},
    "googlenet": (googlenet, IMAGE, None),
    "squeezenet1_0": (squeezenet((96, 7), (2, 6, 11), (3, 4, 5, 7, 8, 9, 10, 12)), IMAGE, None),
    "squeezenet1_1": (squeezenet((64, 3), (2, 5, 8), (3, 4, 6, 7, 9, 10, 11, 12)), IMAGE, None),
    "squeezenet1_1_caffe": (squeezenet1_1_caffe, (3, 227, 227), None),
    "mobilenet_v1": (mobilenet_v1, IMAGE, None),
    "mobilenet_v2": (mobilenet_v2, IMAGE, None),
    "efficientnet_lite0": (efficientnet_lite0, IMAGE, None),
    "xception": (xception, (3, 299, 299), None),
    "densenet121": (densenet121, IMAGE, None),
    "nin": (nin, (3, 32, 32), None),
    **{f"resnet{d}_cifar10": (cifar_resnet(d), (3, 32, 32), None) for d in (20, 32, 44, 56, 110)},
    "unet": (unet, (1, 572, 572), (1, 204, 204)),
    "dcgan_generator": (dcgan_generator, (100, 1, 1), None),
    "lapsrn_x4": (lapsrn_x4, (1, 256, 256), (1, 20, 24)),
    "kws_dscnn": (kws_dscnn, (1, 49, 10), None),
}
