"""What a process that was started to train along does, from what was handed to it to its end."""

from __future__ import annotations

import warnings

import torch

from colabkit.errors import ProcessLostError
from colabkit.fitting.helper_words import Orders
from colabkit.fitting.torch.fitting import fit_module
from colabkit.fitting.torch.handing_over import Package, Surroundings, unpacked
from colabkit.fitting.torch.helpers import HOST, JOIN_TIMEOUT, dist


class Helping:
    """One of several processes, not the first.

    Args:
        orders: What it is told.

    Raises:
        Exception: What was handed over cannot be made again here.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        if orders.backend == "nccl":
            torch.cuda.set_device(orders.rank)
        # A scheduler has marked a step of its optimizer, and the mark does not travel.
        warnings.filterwarnings("ignore", "Seems like `optimizer.step")
        package = Package(orders.package, orders.offset)
        surroundings: Surroundings
        surroundings, self._arguments = unpacked(package)
        surroundings.apply()

    def train(self) -> None:
        """Meets the others, and trains with them."""
        orders = self._orders
        store = dist.TCPStore(HOST, orders.port, is_master=False, timeout=JOIN_TIMEOUT)
        dist.init_process_group(
            orders.backend,
            store=store,
            rank=orders.rank,
            world_size=orders.size,
            timeout=JOIN_TIMEOUT,
        )
        fit_module(*self._arguments)

    @staticmethod
    def is_elsewhere(error: BaseException) -> bool:
        """Whether an error says of another process that it has failed."""
        return isinstance(error, ProcessLostError)
