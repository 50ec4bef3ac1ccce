"""Bodies of networks whose tensors share memory, and on which special values travel: what every backend is tested on.

The input has 8 channels, or 5 for SPECIAL. `n` is the number of channels that a backend keeps together. Activations
stand where a rewrite would otherwise leave nothing to share. REWRITTEN are bodies whose linear layers are put together.
"""

from __future__ import annotations

CONCATS = {
    "side by side": "branches concat { conv {n} 1x1\n conv {2n} 3x3 pad=1 | relu\n skip }",
    "odd channels in the middle": "branches concat { conv {n} 1x1\n conv 5 1x1 | relu\n conv 11 1x1\n 1x1 20 | relu }",
    "a short last": "branches concat { conv {2n} 1x1\n conv 7 1x1 | relu }\n maxpool 2x2",
    "cumulative": "conv {n} 1x1\n repeat 3 { branches concat { skip\n batchnorm | relu | conv {n} 3x3 pad=1 } }",
    "joined twice": "a: conv {n} 1x1\n concat a\n b: conv {n} 1x1\n concat a b",
    "read by a padded convolution": "a: conv {n} 1x1\n conv {n} 3x3 pad=1\n concat a\n conv 8 3x3 pad=1\n concat a",
    "flattened": "branches concat { conv {n} 1x1\n conv 7 1x1 | relu }\n flatten | dense 9",
    "an output": "branches concat { conv {n} 1x1\n conv 7 1x1 | relu }\n output joined\n relu\n output last",
}
HALF = "residual { relu | conv {n} 1x1 }"
RESIDUALS = {
    "a stage": "conv {n} 3x3 pad=1\n repeat 2 { residual { conv {n} 3x3 pad=1 | relu | conv {n} 3x3 pad=1 }\n relu }",
    "read again": "a: conv {n} 1x1\n residual { conv 6 1x1 | relu | conv {n} 1x1 }\n add a",
    "an output": "conv {n} 1x1\n output first\n residual { conv 6 1x1 | relu | conv {n} 3x3 pad=1 }\n output last",
    "flattened": f"a: conv {{n}} 1x1\n {HALF}\n flatten | b: dense 5\n from a\n flatten | dense 5\n add b",
    "joined besides": f"a: conv {{n}} 1x1\n {HALF}\n concat a",
    "wider halo": f"conv {{n}} 1x1\n {HALF}\n conv {{n}} 5x5 pad=2\n {HALF}\n conv 8 3x3 pad=1",
    "the input itself": "residual { relu | conv 8 3x3 pad=1 }\n residual { relu | conv 8 3x3 pad=1 }\n leaky 0.1",
}
SPECIAL = {
    "a convolution": "conv 7 1x1",
    "a window": "conv 7 3x3 pad=1",
    "limits": "relu | conv 7 1x1 | relu6",
    "functions": "tanh | sigmoid | elu | gelu | silu | hardswish | leaky",
    "pooling": "maxpool 3x3 pad=1 | avgpool 2x2",
    "prelu": "prelu",
    "normalisation": "batchnorm | relu | instancenorm | lrn 3",
    "joins": "a: 1x1 5\n residual { relu | 1x1 5 }\n add a\n mul a",
    "a vector": "avgpool global | flatten | dense 9 | relu | dense 5 | softmax",
}
REWRITTEN = {
    "a chain": "conv 16 3x3 pad=1 bias=no | batchnorm | 1x1 4 | relu",
    "a chain with uneven padding": "conv 32 2x2 pad=(1,1,0,2) bias=no | 1x1 5 stride=2x1 | tanh",
    "dilated groups, then every second": "conv 16 3x3 pad=2 dilation=2 groups=2 | 1x1 6 stride=2 groups=2",
    "full padding": "conv 48 2x2 pad=1 bias=no | conv 4 2x1 pad=1x0",
    "dense layers": "flatten | dense 40 | dense 7 bias=no | relu",
    "branches added": "branches add { { conv 8 3x3 pad=1 | batchnorm }\n 1x1 8\n batchnorm\n skip }\n relu",
    "depthwise branches added": "branches add { depthwise 3x3 pad=1\n depthwise 1x3 pad=0x1\n skip }",
    "branches joined": "branches concat { { conv 3 3x3 | relu }\n { conv 6 3x3 bias=no | relu }\n conv 4 3x3 }",
    "normalised before": "tanh | batchnorm | scale | conv 6 3x3 groups=2 | tanh | batchnorm | flatten | dense 5",
}


def kept_by(n: int, body: str) -> str:
    """A body for a backend that keeps `n` channels together."""
    return body.replace("{n}", str(n)).replace("{2n}", str(2 * n))
