"""The CPU backend: plain Python kernels on SIMD vectors, compiled by Numba for the processor they run on."""

from netdsl.backends.cpu.program import Program, lower

__all__ = ["Program", "lower"]
