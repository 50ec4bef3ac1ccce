"""Train the LeNet-5 that ships, and cut the sample digit: networks/lenet5.safetensors, networks/samples/digit.png.

    python bench/train_lenet5.py

Needs netdsl, torch, scikit-learn and safetensors. Data: scikit-learn's `load_digits`, 1,797 handwritten digits of 8x8
pixels, values 0..16 (UCI "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, CC BY 4.0), brought
to 32x32 by netdsl's own preprocessing. A fixed fifth is held out and never trained on; it is also written to
tests/golden/networks/held_out_digits.npz, so that a test can repeat the accuracy that the weights' metadata states.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import numpy as np
import sklearn
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from netdsl.graph.ir import InputSpec, Preprocess
from netdsl.images import from_array, prepare
from netdsl.tensor import TensorType

ROOT = Path(__file__).resolve().parent.parent
SEED = 1998
HELD_OUT = 360  # of 1,797 digits: a fifth
EPOCHS = 300
BATCH = 64
INPUT = InputSpec("image", 0, TensorType((1, 32, 32)), Preprocess(resize=32))  # as networks/lenet5.net states


class LeNet5(nn.Module):
    """LeNet-5 with tanh and max pooling, under the weight names of networks/lenet5.net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({"conv1": nn.Conv2d(1, 6, 5), "conv2": nn.Conv2d(6, 16, 5)})
        self.fc = nn.ModuleDict({"fc1": nn.Linear(400, 120), "fc2": nn.Linear(120, 84), "fc3": nn.Linear(84, 10)})

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.conv.values():
            x = F.max_pool2d(torch.tanh(conv(x)), 2)
        x = x.flatten(1)
        x = torch.tanh(self.fc["fc2"](torch.tanh(self.fc["fc1"](x))))
        return self.fc["fc3"](x)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits as uint8 pixels [N, 8, 8], white on black, and their labels [N]."""
    data = load_digits()
    return (data.images * (255 / 16)).round().astype(np.uint8), data.target.astype(np.int64)


def inputs(pixels: np.ndarray) -> Tensor:
    """Network inputs [N, 1, 32, 32] of pixels [N, 8, 8]."""
    return torch.from_numpy(np.concatenate([prepare(from_array(p), INPUT) for p in pixels]))


def bend(x: Tensor) -> Tensor:
    """The batch with each digit turned by up to 12 degrees, scaled by up to 12 %, moved by up to 3 pixels."""
    n = len(x)
    angle = (torch.rand(n) * 2 - 1) * math.radians(12)
    scale = 1 + (torch.rand(n, 2) * 2 - 1) * 0.12
    shift = (torch.rand(n, 2) * 2 - 1) * 3 / 16
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [torch.stack([cos * scale[:, 0], -sin * scale[:, 1], shift[:, 0]], 1),
            torch.stack([sin * scale[:, 0], cos * scale[:, 1], shift[:, 1]], 1)]  # fmt: skip
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def train(x: Tensor, labels: Tensor) -> LeNet5:
    net = LeNet5()
    steps = EPOCHS * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(bend(x[rows])), labels[rows], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    pixels, labels = digits()
    order = np.random.default_rng(SEED).permutation(len(pixels))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    net = train(inputs(pixels[rest]), torch.from_numpy(labels[rest]))
    with torch.inference_mode():
        probabilities = net(inputs(pixels[held])).softmax(1).numpy()
    right = probabilities.argmax(1) == labels[held]
    print(f"held-out accuracy {right.mean():.4f} ({right.sum()} of {HELD_OUT})")

    metadata = {
        "script": "bench/train_lenet5.py",
        "data": "scikit-learn load_digits: UCI Optical Recognition of Handwritten Digits, E. Alpaydin, C. Kaynak, 1998",
        "data_licence": "CC BY 4.0",
        "date": datetime.date.today().isoformat(),
        "held_out": f"{HELD_OUT} of {len(pixels)} digits, numpy default_rng({SEED}).permutation",
        "held_out_accuracy": f"{right.mean():.4f}",
        "made_with": f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, seed {SEED}",
    }
    weights = ROOT / "networks" / "lenet5.safetensors"
    save_file(dict(net.state_dict()), weights, metadata)
    weights.chmod(0o644)  # save_file makes it private
    np.savez_compressed(
        ROOT / "tests" / "golden" / "networks" / "held_out_digits.npz",
        x=pixels[held],
        labels=labels[held].astype(np.uint8),
    )
    sample = next(i for i in range(HELD_OUT) if labels[held][i] == 5 and right[i] and probabilities[i, 5] > 0.9)
    shown = Image.fromarray(pixels[held][sample]).resize((32, 32), Image.Resampling.BILINEAR)
    shown.save(ROOT / "networks" / "samples" / "digit.png")


if __name__ == "__main__":
    main()
