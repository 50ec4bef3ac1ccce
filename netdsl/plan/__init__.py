"""Decisions that do not depend on a device: where tensors lie in memory."""
