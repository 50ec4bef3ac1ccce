"""Make tests/golden/networks: what every shipped network must answer, computed by PyTorch in float64.

    python bench/make_goldens.py [NAME ...] [--compare FOLDER]

Needs torch (2.13.0 made the committed files) and numpy; netdsl itself is not imported. For each network of
bench/torch_nets.py, weights are made from their names and the input from a fixed seed (tests/golden_tensors.py).
Written: NAME.npz with the outputs for two images (float32) and, in facts.json, parameters, MACs for one image of the
stated input shape, the number of stored tensors and a digest of their names and shapes.

With --compare, outputs, names and shapes are also checked against a folder with `golden_logits.npz`, `networks.json`
and `state_dicts/`, made by someone else by the same rules.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from golden_tensors import digest, golden_input  # noqa: E402
from torch_nets import NETS, Layers  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "networks"


def run(forward, shape):
    """Outputs [2, ...] in float64 as a list, and the Layers that recorded names and cost."""
    layers = Layers()
    with torch.inference_mode():
        out = forward(layers, torch.from_numpy(golden_input(shape)).double())
    return [y.numpy() for y in (out if isinstance(out, tuple) else (out,))], layers


def cost(forward, shape):
    """MACs for one image of a shape, by running it on zeros (`meta` tensors would not make the weights)."""
    layers = Layers()
    with torch.inference_mode():
        forward(layers, torch.zeros((1, *shape), dtype=torch.float64))
    return layers.macs


def make(name):
    """Write the golden of one network; return its facts."""
    forward, shape, small = NETS[name]
    outputs, layers = run(forward, small or shape)
    named = {f"out{i}": y.astype(np.float32) for i, y in enumerate(outputs)}
    np.savez_compressed(GOLDEN / f"{name}.npz", **named)
    return outputs, layers, {
        "input": list(small or shape),
        "params": layers.params,
        "macs": cost(forward, shape) if small else layers.macs,
        "tensors": len(layers.shapes),
        "digest": digest(layers.shapes),
    }  # fmt: skip


def compare(folder, name, outputs, layers, facts):
    """Check one network against someone else's facts, where they have it."""
    known = json.loads((folder / "networks.json").read_text()).get(name)
    if known is None:
        return "not there"
    stored = json.loads((folder / "state_dicts" / f"{name}.json").read_text())
    assert {k: tuple(v) for k, v in stored.items()} == layers.shapes, f"{name}: names or shapes differ"
    for key in ("params", "macs", "tensors"):
        assert known[key] == facts[key], f"{name}: {key} {facts[key]}, there {known[key]}"
    wanted = np.load(folder / "golden_logits.npz")[name]
    error = np.abs(outputs[0] - wanted).max() / np.abs(wanted).max()
    assert error < 1e-9, f"{name}: outputs differ by {error:.1e} of the largest"
    return f"agrees to {error:.0e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=list(NETS))
    parser.add_argument("--compare", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    index = GOLDEN / "facts.json"
    facts = json.loads(index.read_text()) if index.exists() else {}
    for name in args.names:
        outputs, layers, facts[name] = make(name)
        verdict = compare(args.compare, name, outputs, layers, facts[name]) if args.compare else ""
        largest = max(float(np.abs(y).max()) for y in outputs)
        print(f"{name:20} {facts[name]['params']:>11,} parameters {facts[name]['macs']:>15,} MACs "
              f"largest output {largest:.3g} {verdict}", flush=True)  # fmt: skip
    lines = [f' "{name}": {json.dumps(facts[name])}' for name in NETS if name in facts]
    index.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
