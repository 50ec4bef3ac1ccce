"""The reference backend: a plain NumPy interpreter that every other backend is tested against."""

from netdsl.backends.reference.interpreter import run

__all__ = ["run"]
