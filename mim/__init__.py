"""Masked image modelling for X-rays: pretrain, fine-tune behind an input masker, evaluate."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mim")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

__all__ = ["__version__"]
