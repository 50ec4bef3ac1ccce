"""Kernels as PTX, run without a GPU: `text` reads them, `machine` runs them on the `memory` of a virtual card.

`words`, `moves` and `tensor` say what instructions do, over `operands`.
"""
