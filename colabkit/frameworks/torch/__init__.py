"""PyTorch: a module's state, data and random streams, behind the protocol of adapters."""

from colabkit.frameworks.torch.adapter import TorchAdapter
from colabkit.frameworks.torch.backend import TorchBackend
from colabkit.frameworks.torch.randomness import seed_everything
from colabkit.frameworks.torch.sources import feed_of

__all__ = ["TorchAdapter", "TorchBackend", "feed_of", "seed_everything"]
