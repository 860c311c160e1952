"""Origins: what a dataset is made from, behind one contract."""

from colabkit.datasets.origins.origin import Contents, Origin
from colabkit.datasets.origins.supply import Request, Supply

__all__ = [
    "Contents",
    "Origin",
    "Request",
    "Supply",
]
