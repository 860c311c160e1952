"""The former address of what is PyTorch's: loading it loads all that ``fit`` takes."""

from colabkit.fitting.torch import TorchOptions, fit_module
from colabkit.frameworks.torch import TorchAdapter, TorchBackend, feed_of, seed_everything

__all__ = [
    "TorchAdapter",
    "TorchBackend",
    "TorchOptions",
    "feed_of",
    "fit_module",
    "seed_everything",
]
