"""What is known of the streams of other libraries, by the stages that they are made of."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import data as torch_data

from colabkit.frameworks.attributes import has_state

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
# Nodes refer to one another in both directions.
_NODES_MAX = 256
# A thread ends with the sample that it fetches.
_PATIENCE_S = 60.0
_MAKES_SAMPLES = frozenset(
    {
        ("webdataset", "_unbatched"),
        ("webdataset", "_unlisted"),
        ("torch", "UnBatcherIterDataPipe"),
    }
)


def says_its_place(source: Any) -> bool:
    """Whether a source has a state of its own that can be asked for just so.

    Source:
        litdata.StreamingDataset.state_dict, which its own loader tells how much was read.
    """
    if not has_state(source):
        return False
    try:
        inspect.signature(source.state_dict).bind()
    except TypeError:
        return False
    except ValueError:  # a compiled one, which says nothing of itself
        return True
    return True


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


def counts_alone(source: Any) -> bool:
    """Whether a source's state is how many batches it gave, which a resume counts twice.

    Such a source is read again instead, as it would do itself.

    Source:
        torchdata.stateful_dataloader, whose iterators fetch again what a stream without a state
        gave, and count that on top.
    """
    kinds = (each.__module__ for each in type(source).__mro__)
    is_loader = any(each.startswith("torchdata.stateful_dataloader") for each in kinds)
    return is_loader and not hasattr(source.dataset, "state_dict")


def forget_old_state(source: Any) -> None:
    """Has a loader of torchdata's nodes say its own state, where it was loaded at an end.

    Source:
        torchdata.nodes.loader.LoaderIterator, whose ``reset`` forgets the item that it has looked
        ahead for, and keeps the state that belongs to it.
    """
    reading: Any = getattr(source, "_it", None)
    if is_of_nodes(source) and getattr(reading, "_cached_item", source) is None:
        reading._cached_state_dict = None


def end_readers(source: Any) -> None:
    """Ends the threads in which nodes of torchdata still read, once nobody wants the rest.

    The nodes wait half a second for them when they begin anew. One that takes longer, on a busy
    machine, draws from the generators of the next pass, or takes a sample of it.

    Source:
        torchdata.nodes.map, whose iterators have ``_shutdown`` and join their threads there.
    """
    if getattr(source, "_iter_for_state_dict", False):
        return  # asked for its state, it has begun the pass that comes next
    for node in _nodes_of(source):
        if not hasattr(node, "_shutdown"):
            continue
        node._shutdown()
        for value in vars(node).values():
            for thread in value if isinstance(value, list) else [value]:
                if isinstance(thread, threading.Thread):
                    thread.join(_PATIENCE_S)


def come_to_the_end(source: Any) -> None:
    """Has a loader of torchdata's nodes that was loaded at the end of a pass arrive there.

    Else it would go through the old order and begin the next pass at once, so that a sampler with
    a generator of its own drew for both under one seed.
    """
    if not is_of_nodes(source):
        return
    end_readers(source)
    restarts, source.restart_on_stop_iteration = source.restart_on_stop_iteration, False
    try:
        for _ in source:
            pass
    finally:
        source.restart_on_stop_iteration = restarts


def readers_of_nodes(source: Any) -> int:
    """Returns how many workers a node of torchdata has that reads in most of them, 0 for none."""
    return max((int(vars(node).get("num_workers", 0)) for node in _nodes_of(source)), default=0)


def _nodes_of(source: Any) -> Iterator[Any]:
    """Yields the nodes that a node of torchdata is made of, itself and their iterators included."""
    seen: set[int] = set()
    waiting = [source] if is_of_nodes(source) else []
    while waiting and len(seen) < _NODES_MAX:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            waiting += filter(is_of_nodes, vars(node).values())
            yield node


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
