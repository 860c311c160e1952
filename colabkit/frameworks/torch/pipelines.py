"""What is known of the streams of other libraries, by the stages that they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import data as torch_data

# The stages that make batches of samples, and those that undo it, by library and name.
_MAKES_BATCHES = frozenset(
    {
        ("webdataset", "_batched"),
        ("datasets", "_batch_fn"),
        ("datasets", "_batch_arrow_table"),
        ("datasets", "_batch_accumulate_arrow_table_by_columns"),
        ("torch", "CollatorIterDataPipe"),
        ("torch", "BatcherIterDataPipe"),
    }
)
_MAKES_SAMPLES = frozenset(
    {
        ("webdataset", "_unbatched"),
        ("webdataset", "_unlisted"),
        ("torch", "UnBatcherIterDataPipe"),
    }
)


def hugging_face_stream(source: Any) -> Any:
    """Returns the stream of Hugging Face's datasets that a source is, or reads by a loader."""
    for each in (source, getattr(source, "dataset", None)):
        if hasattr(each, "_ex_iterable") and hasattr(each, "load_state_dict"):
            return each
    return None


def forgets_its_buffer(source: Any) -> bool:
    """Whether a source's state leaves out the samples that it has read to shuffle them.

    Such a source is read again instead: its order follows from its seed.

    Source:
        datasets.IterableDataset.state_dict, whose docstring says so of ``shuffle``.
    """
    stream = hugging_face_stream(source)
    return any(type(stage).__name__.startswith("BufferShuffled") for stage in _stages(stream))


def forget_old_state(source: Any) -> None:
    """Has a loader of torchdata's nodes say its own state, where it was loaded at an end.

    Source:
        torchdata.nodes.loader.LoaderIterator, whose ``reset`` forgets the item that it has looked
        ahead for, and keeps the state that belongs to it.
    """
    reading: Any = getattr(source, "_it", None)
    if is_of_nodes(source) and getattr(reading, "_cached_item", source) is None:
        reading._cached_state_dict = None


def is_of_nodes(source: Any) -> bool:
    """Whether a source is made of torchdata's nodes."""
    return type(source).__module__.startswith("torchdata.nodes")


def gives_batches(source: Any) -> bool:
    """Whether the stages of a stream make batches of its samples, whatever comes after."""
    for stage in map(_name_of, _stages(source)):
        if stage in _MAKES_BATCHES or stage in _MAKES_SAMPLES:
            return stage in _MAKES_BATCHES
    return False


def whole_batch(item: Any) -> Any:
    """Returns a batch that a stream has made; of samples that it has only put in a list, one."""
    if isinstance(item, list) and all(isinstance(each, tuple | Mapping) for each in item):
        return torch_data.default_collate(list(item))
    if isinstance(item, Mapping):
        item = {name: _numbers(value) for name, value in item.items()}
    convert: Any = torch_data.default_convert
    return convert(item)


def _numbers(value: Any) -> Any:
    """Returns lists of numbers as a tensor, anything else as it is."""
    if not isinstance(value, list):
        return value
    try:
        return torch.tensor(value)
    except (TypeError, ValueError):
        return value


def _stages(source: Any) -> Iterator[Any]:
    """Yields the stages of a stream, the last first."""
    waiting = [getattr(source, "_ex_iterable", source)]
    while waiting:
        stage = waiting.pop(0)
        yield stage
        inner = vars(stage) if hasattr(stage, "__dict__") else {}
        # webdataset keeps its stages in a list, the first of which reads.
        waiting += reversed(inner.get("pipeline", ()))
        waiting += [inner[n] for n in ("ex_iterable", "original_ex_iterable") if n in inner]
        waiting += inner.get("ex_iterables", ())
        if isinstance(stage, torch_data.IterDataPipe) and "datapipe" in inner:
            waiting.append(inner["datapipe"])


def _name_of(stage: Any) -> tuple[str, str]:
    made_by: Any = getattr(stage, "f", None) or getattr(stage, "function", None)
    while hasattr(made_by, "func"):
        made_by = made_by.func
    named = made_by if hasattr(made_by, "__name__") else type(stage)
    return str(named.__module__).partition(".")[0], named.__name__
