"""One object that Keras on PyTorch reads epoch after epoch, each from where it should begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import torch
from torch.utils import data as torch_data

from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.batch_watches import SampledWatch
from colabkit.frameworks.keras.compare import record
from colabkit.frameworks.keras.pass_watch import PassWatch, seen_by


class _Batches(torch_data.IterableDataset[Any]):
    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.due: Start | None = None
        self.watch = SampledWatch(record)

    def __iter__(self) -> Iterator[Any]:
        start, self.due = self.due, None
        if start is None:
            return iter(())
        self.watch = SampledWatch(record, first=start.skip)
        return map(_tensors, seen_by(self.watch, self.feed.batches(start)))


class TorchPasses(torch_data.DataLoader[Any]):
    """Looks like a DataLoader; each epoch's first iterator begins where the run stands.

    Attributes:
        length: Batches in each epoch of the coming ``fit``, None where it is not known.
    """

    def __init__(self, feed: Feed) -> None:
        self.length: int | None = None
        self.batches = _Batches(feed)
        # A generator of its own: to begin a pass must not draw from the global stream.
        generator = torch.Generator().manual_seed(0)
        super().__init__(self.batches, batch_size=None, collate_fn=_same, generator=generator)

    def begin(self, start: Start) -> None:
        """Says where the next iterator begins."""
        self.batches.due = start
        if (expect := getattr(self.batches.feed, "expect", None)) is not None:
            expect(start)

    @property
    def watch(self) -> PassWatch:
        """What takes down the batches of the epoch under way."""
        return self.batches.watch


def _same(batch: Any) -> Any:
    return batch


def _tensors(batch: Any) -> Any:
    return keras.tree.map_structure(_tensor, batch)


def _tensor(value: Any) -> Any:
    if value is None or isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "toarray"):
        value = value.toarray()
    return torch.as_tensor(keras.ops.convert_to_numpy(value))
