"""The CUDA backend: plain Python kernels, one thread or one block at a time, compiled by numba.cuda for NVIDIA GPUs."""

from netdsl.backends.cuda.program import Program, lower

__all__ = ["Program", "lower"]
