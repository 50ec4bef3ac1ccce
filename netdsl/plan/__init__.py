"""Decisions that do not depend on a device: where tensors lie, which cells a window meets, what an activation does."""
