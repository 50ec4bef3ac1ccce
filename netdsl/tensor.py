"""What is known of a tensor at compile time."""

from __future__ import annotations

import math

from netdsl.frozen import frozen

Shape = tuple[int, ...]

MAX_ELEMENTS = 2**31 - 1  # chosen: of one image's tensor or of one weight; 8 GiB in float32


@frozen
class TensorType:
    """Shape of one image's tensor, without the batch: (C, H, W) for maps, (F,) for vectors; float32."""

    shape: Shape

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[1]

    @property
    def width(self) -> int:
        return self.shape[2]

    @property
    def is_map(self) -> bool:
        """Whether this is a (C, H, W) feature map, not a vector."""
        return len(self.shape) == 3

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))
