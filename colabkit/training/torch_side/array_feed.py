"""Arrays in memory as a source of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from colabkit.training.feed import Start

_CHUNK_BYTES = 4 << 20


class ArrayFeed:
    """Arrays in memory: batches are gathered whole, in an order drawn per epoch.

    Args:
        tensors: Tensors of equal first dimension [N, ...].
        rebuild: Makes one batch of the gathered tensors.
        batch_size: Samples in a batch; the last one may be smaller.
        shuffle: Whether each pass has its own order.
    """

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        rebuild: Callable[[Sequence[torch.Tensor]], Any],
        *,
        batch_size: int,
        shuffle: bool,
    ) -> None:
        self._tensors = tensors
        self._rebuild = rebuild
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._samples = len(tensors[0])
        self.length: int | None = -(-self._samples // batch_size)
        sample_bytes = sum(t[:1].nbytes for t in tensors) or 1
        self._batches_per_gather = max(1, _CHUNK_BYTES // (sample_bytes * batch_size))

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields gathered batches; several are gathered in one call where they are small."""
        size, rebuild = self._batch_size, self._rebuild
        stride = size * self._batches_per_gather
        order = self._order(start.key)
        for first in range(start.skip * size, self._samples, stride):
            chunk = [self._gather(tensor, order, first, stride) for tensor in self._tensors]
            for batch in zip(*(torch.split(tensor, size) for tensor in chunk), strict=True):
                yield rebuild(batch)

    def _order(self, key: int) -> torch.Tensor | None:
        if not self._shuffle:
            return None
        order = torch.randperm(self._samples, generator=torch.Generator().manual_seed(key))
        return order.to(self._tensors[0].device)

    @staticmethod
    def _gather(
        tensor: torch.Tensor, order: torch.Tensor | None, first: int, count: int
    ) -> torch.Tensor:
        if order is None:
            return tensor[first : first + count]
        return tensor.index_select(0, order[first : first + count])

    def state(self) -> object:
        """The order follows from the key: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size."""
        return {"samples": self._samples, "batch_size": self._batch_size}

    def reasons(self) -> tuple[str, ...]:
        """Nothing stands against exactness."""
        return ()

    def notices(self) -> tuple[str, ...]:
        """Nothing to say."""
        return ()
