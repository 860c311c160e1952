"""The PyTorch side: a module's state, data and steps, behind the protocol in ``side``."""

from colabkit.training.torch_side.backend import TorchBackend
from colabkit.training.torch_side.fitting import TorchOptions, fit_module
from colabkit.training.torch_side.randomness import seed_everything
from colabkit.training.torch_side.side import TorchSide
from colabkit.training.torch_side.sources import feed_of

__all__ = [
    "TorchBackend",
    "TorchOptions",
    "TorchSide",
    "feed_of",
    "fit_module",
    "seed_everything",
]
