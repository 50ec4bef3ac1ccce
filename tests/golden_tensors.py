"""Weights and inputs made from names alone, so that goldens need to store only outputs."""

import zlib

import numpy as np


def golden_tensor(name, shape):
    """The float32 weight of this name and shape: seeded by the name, scaled so that deep networks stay finite."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        value = 1 + 0.1 * np.abs(z)
    elif name.endswith(("running_mean", "bias")):
        value = 0.1 * z
    elif len(shape) == 1:  # the weight of a batch norm
        value = 1 + 0.1 * z
    else:
        value = z * np.sqrt(1.0 / np.prod(shape[1:])) * 1.2
    return value.astype(np.float32)


def golden_input(shape):
    """Two random images [2, *shape], float32."""
    return np.random.default_rng(2026).standard_normal((2, *shape)).astype(np.float32)


def digest(tensors):
    """One number for a set of named shapes: CRC-32 of the sorted lines `name:CxHxW`."""
    lines = sorted(f"{name}:{'x'.join(map(str, shape))}" for name, shape in tensors.items())
    return zlib.crc32("\n".join(lines).encode())
