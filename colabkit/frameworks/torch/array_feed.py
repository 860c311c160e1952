"""Arrays in memory as a source of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from colabkit.frameworks.base import Start
from colabkit.frameworks.seeding import derive
from colabkit.frameworks.torch.compare import batch_digest
from colabkit.frameworks.torch.parts import Parts, Share

# index_select knows no unsigned numbers wider than a byte.
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


class ArrayFeed:
    """Arrays in memory: each batch is gathered into memory of its own, in an order per epoch.

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
        self._dtypes = [tensor.dtype for tensor in tensors]
        self._tensors = [tensor.view(_SIGNED.get(tensor.dtype, tensor.dtype)) for tensor in tensors]
        views = not _SIGNED.keys().isdisjoint(self._dtypes)
        self._rebuild = self._viewed(rebuild) if views else rebuild
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._samples = len(tensors[0])
        self.length: int | None = -(-self._samples // batch_size)

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields gathered batches; none shares memory with the arrays or with another."""
        rebuild, tensors, gather = self._rebuild, self._tensors, torch.index_select
        for indices in torch.split(self._order(start.key), self._batch_size)[start.skip :]:
            yield rebuild([gather(tensor, 0, indices) for tensor in tensors])

    def parts(self, start: Start, share: Share) -> Iterator[Parts]:
        """Yields, of each batch, the parts that one process takes: no others are gathered."""
        batches = torch.split(self._order(start.key), self._batch_size)
        for number, indices in enumerate(batches[start.skip :], start.skip):
            key = derive(start.key, number, "parts")
            yield share.cut(key, len(indices), self._gather_from(indices))

    def samples_of_last(self) -> int:
        """Returns how many samples the last batch of a pass has."""
        return (self._samples - 1) % self._batch_size + 1

    def first_sample(self) -> str:
        """Returns a hash of the first sample."""
        return batch_digest([tensor[:1] for tensor in self._tensors])

    def _gather_from(self, indices: torch.Tensor) -> Callable[[slice], Any]:
        def take(place: slice) -> Any:
            return self._rebuild([t.index_select(0, indices[place]) for t in self._tensors])

        return take

    def _viewed(self, rebuild: Callable[[Sequence[torch.Tensor]], Any]) -> Any:
        return lambda batch: rebuild([t.view(d) for t, d in zip(batch, self._dtypes, strict=True)])

    def _order(self, key: int) -> torch.Tensor:
        if self._shuffle:
            generator = torch.Generator().manual_seed(key)
            order = torch.randperm(self._samples, generator=generator)
        else:
            order = torch.arange(self._samples)
        return order.to(self._tensors[0].device)

    def state(self) -> object:
        """The order follows from the key: nothing to keep."""
        return None

    def describe(self) -> Mapping[str, Any]:
        """Samples and batch size."""
        return {"samples": self._samples, "batch_size": self._batch_size}

    def reasons(self) -> tuple[str, ...]:
        return ()

    def notices(self) -> tuple[str, ...]:
        return ()
