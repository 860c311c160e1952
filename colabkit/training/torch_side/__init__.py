"""PyTorch: a module's state, data and random streams, behind the protocol in ``side``."""

from colabkit.training.torch_side.backend import TorchBackend
from colabkit.training.torch_side.randomness import seed_everything
from colabkit.training.torch_side.side import TorchSide
from colabkit.training.torch_side.sources import feed_of

__all__ = ["TorchBackend", "TorchSide", "feed_of", "seed_everything"]
