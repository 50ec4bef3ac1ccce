"""The CUDA backend: plain Python kernels, one thread or one block at a time, compiled by numba.cuda for NVIDIA GPUs.

Importing this imports nothing: whether there is a GPU (device.py) is asked on machines that have none, too.
"""
