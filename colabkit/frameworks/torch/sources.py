"""Turns whatever the user calls data into a source of batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import data as torch_data

from colabkit.errors import ArgumentError
from colabkit.frameworks.base import Feed
from colabkit.frameworks.torch.array_feed import ArrayFeed
from colabkit.frameworks.torch.loading import loader_within
from colabkit.frameworks.torch.map_feed import MapFeed
from colabkit.frameworks.torch.pipelines import gives_batches, whole_batch
from colabkit.frameworks.torch.prepared import PreparedFeed, is_prepared_loader
from colabkit.frameworks.torch.stream_feed import StreamFeed

_GPU_SHARE = 0.25
# What a subclass of DataLoader may do to its batches otherwise than by its parts.
_READING = ("__iter__", "_get_iterator", "_index_sampler", "_auto_collation")


def feed_of(data: Any, *, batch_size: int, shuffle: bool, device: torch.device) -> Feed:
    """Returns the feed for arrays, a Dataset, a DataLoader, or any iterable of batches.

    Raises:
        ArgumentError: When the data is none of these, or empty.
    """
    _refuse_what_is_no_data(data)
    if isinstance(data, torch_data.DataLoader):
        feed = _of_loader(data, device)
    elif isinstance(data, torch_data.IterableDataset) and loader_within(data) is not None:
        feed = StreamFeed(data)
    elif isinstance(data, torch_data.IterableDataset):
        feed = _of_loader(_loader_of_stream(data, batch_size), device)
    elif _is_arrays(data):
        feed = _of_arrays(data, batch_size=batch_size, shuffle=shuffle, device=device)
    elif isinstance(data, torch_data.Dataset) or _is_map_style(data):
        rows: Any = _giving_tensors(data)
        loader = torch_data.DataLoader(rows, batch_size=batch_size, shuffle=shuffle)
        feed = _of_loader(loader, device)
    elif callable(data) or isinstance(data, Iterable):
        feed = StreamFeed(data)
    else:
        raise _unreadable(data)
    if feed.length == 0:
        message = "data holds no batches."
        hint = "Check the folder it was read from, and drop_last with few samples."
        raise ArgumentError(message, argument="data", hint=hint)
    return feed


def _loader_of_stream(
    data: torch_data.IterableDataset[Any], batch_size: int
) -> torch_data.DataLoader[Any]:
    if gives_batches(data):
        return torch_data.DataLoader(data, batch_size=None, collate_fn=whole_batch)
    return torch_data.DataLoader(data, batch_size=batch_size)


def _giving_tensors(data: Any) -> Any:
    """Returns a Hugging Face dataset that gives lists of numbers as one that gives tensors.

    PyTorch's collate function would make of lists one tensor for each place in them.
    """
    if not hasattr(data, "with_format") or getattr(data, "format", {}).get("type", "") is not None:
        return data
    first = data[0] if len(data) else {}
    return data.with_format("torch") if any(isinstance(first[k], list) for k in first) else data


def _of_parts(data: Mapping[str, object]) -> ArgumentError:
    message = f"data is a {type(data).__name__} of {', '.join(data)}, and no data itself."
    hint = f"Pass one of them, data[{next(iter(data), '')!r}]; another as validation_data."
    return ArgumentError(message, argument="data", hint=hint)


def _refuse_what_is_no_data(data: Any) -> None:
    if isinstance(data, str | Path) or hasattr(data, "to_numpy"):
        raise _unreadable(data)
    if isinstance(data, Mapping) and not _is_arrays(data) and all(type(k) is str for k in data):
        raise _of_parts(data)
    if isinstance(data, tuple | list) and any(_is_of_torch(each) for each in data):
        raise _of_several(data)
    if isinstance(data, tuple) and any(hasattr(each, "shape") for each in data):
        _require_no_lists(data)


def _require_no_lists(data: tuple[Any, ...]) -> None:
    for part in data:
        if isinstance(part, list) and part and isinstance(part[0], str | int | float):
            is_text = isinstance(part[0], str)
            message = f"data holds a list of {'text' if is_text else 'plain numbers'}."
            hint = "Pass an array: np.array(y)."
            if is_text:
                hint = "Pass the number of each class: np.unique(y, return_inverse=True)[1]."
            raise ArgumentError(message, argument="data", hint=hint)


def _is_of_torch(data: object) -> bool:
    return isinstance(data, torch_data.DataLoader | torch_data.Dataset)


def _of_several(data: Sequence[object]) -> ArgumentError:
    names = ", ".join(type(each).__name__ for each in data)
    message = f"data is a {type(data).__name__} of {len(data)} ({names}), and no data itself."
    hint = "Pass one of them; fit takes another as validation_data"
    if all(isinstance(each, torch_data.Dataset) for each in data):
        hint += "; to train on all, torch.utils.data.ConcatDataset(data)"
    return ArgumentError(message, argument="data", hint=f"{hint}.")


def _unreadable(data: object) -> ArgumentError:
    message = f"data is a {type(data).__name__}, from which no batches can be read."
    hint = "Pass (x, y) arrays, a Dataset, a DataLoader, or an iterable of batches."
    if isinstance(data, str | Path):
        hint = (
            "Pass a Dataset of what lies there, torchvision.datasets.ImageFolder(folder) say;"
            " colabkit.dataset(path) unpacks an archive, and returns its folder."
        )
    elif isinstance(data, float):
        hint = (
            "Split the data beforehand: torch.utils.data.random_split(data, [0.8, 0.2],"
            " torch.Generator().manual_seed(0)); the second part is validation_data."
        )
    elif callable(getattr(data, "train_dataloader", None)):
        hint = (
            "Pass its loaders, after data.prepare_data() and data.setup('fit'): data="
            "data.train_dataloader(), validation_data=data.val_dataloader()."
        )
    elif hasattr(data, "to_numpy"):
        hint = 'Pass arrays of it: (x.to_numpy("float32"), y.to_numpy()).'
    return ArgumentError(message, argument="data", hint=hint)


def _of_loader(loader: torch_data.DataLoader[Any], device: torch.device) -> Feed:
    if is_prepared_loader(loader):
        prepared: Any = loader
        return PreparedFeed(prepared, _of_loader(prepared.base_dataloader, device))
    pin = loader.pin_memory and device.type == "cuda"
    if isinstance(loader.dataset, torch_data.IterableDataset):
        if _reads_as_its_parts(loader):
            return StreamFeed(loader.dataset, loader=loader, pin=pin)
        has_state = hasattr(loader, "state_dict")
        return StreamFeed(loader, loader=loader if has_state else None, pin=False)
    if _reads_as_its_parts(loader) or type(loader).__module__.startswith("torchdata."):
        return MapFeed(loader, pin=pin)
    return StreamFeed(loader)


def _reads_as_its_parts(loader: torch_data.DataLoader[Any]) -> bool:
    """Whether a loader's batches follow from its dataset, sampler and collate function alone."""
    plain = torch_data.DataLoader
    return all(getattr(type(loader), name) is getattr(plain, name) for name in _READING)


def _is_array(value: object) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _is_arrays(data: object) -> bool:
    if isinstance(data, Mapping):
        return bool(data) and all(_is_arrays(value) for value in data.values())
    if isinstance(data, tuple):
        return bool(data) and all(_is_arrays(value) for value in data)
    return _is_array(data)


def _is_map_style(data: object) -> bool:
    is_sequence_of_batches = isinstance(data, Sequence)
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not is_sequence_of_batches


def _of_arrays(data: Any, *, batch_size: int, shuffle: bool, device: torch.device) -> Feed:
    tensors: list[torch.Tensor] = []
    build = _collect(data, tensors)
    if isinstance(data, tuple) and all(_is_array(value) for value in data):
        build = tuple
    lengths = sorted({len(tensor) if tensor.ndim else -1 for tensor in tensors})
    if len(lengths) > 1 or lengths[0] < 0:
        message = f"The arrays in data have different lengths: {lengths}."
        hint = "The first dimension of each must count the samples."
        raise ArgumentError(message, argument="data", hint=hint)
    if _fits_on(device, tensors):
        tensors = [tensor.to(device) for tensor in tensors]
    return ArrayFeed(tensors, build, batch_size=batch_size, shuffle=shuffle)


def _collect(data: Any, tensors: list[torch.Tensor]) -> Any:
    """Appends the leaves to ``tensors``; returns what makes the same nesting of a batch."""
    if isinstance(data, Mapping):
        parts = {key: _collect(value, tensors) for key, value in data.items()}
        return lambda batch: {key: part(batch) for key, part in parts.items()}
    if isinstance(data, tuple):
        members = [_collect(value, tensors) for value in data]
        return lambda batch: tuple(member(batch) for member in members)
    if isinstance(data, np.ndarray) and data.dtype.kind not in "biufc":
        message = f"An array in data is of dtype {data.dtype}, and not of numbers."
        hint = "Of classes by name make numbers: names, y = np.unique(y, return_inverse=True)."
        raise ArgumentError(message, argument="data", hint=hint)
    if isinstance(data, np.ndarray) and min(data.strides, default=0) < 0:
        data = np.ascontiguousarray(data)  # PyTorch has no negative strides
    place = len(tensors)
    tensors.append(torch.as_tensor(data))
    return lambda batch: batch[place]


def _fits_on(device: torch.device, tensors: Sequence[torch.Tensor]) -> bool:
    if device.type != "cuda":
        return False
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return sum(tensor.nbytes for tensor in tensors) < _GPU_SHARE * free_bytes
