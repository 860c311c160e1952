"""Whether a loop changes its dataset while batches are fetched from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import data as torch_data

from colabkit.frameworks.generators import Search
from colabkit.frameworks.paths import UNCHANGING
from colabkit.frameworks.users_own import attributes_of, is_of_users_class

_PARTS_MAX = 64
_DEPTH_MAX, _OBJECTS_MAX = 8, 10_000
_GONE = object()


class DatasetWatch:
    """The numbers, switches and words that a dataset and its transforms have.

    The last batch trained is fetched again by a resume. Where a callback has turned a number of
    the dataset in mid-epoch, that shows it under another; and workers hold copies, which see
    nothing of it.

    Args:
        dataset: The dataset, as the loop knows it.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._noted: dict[str, Any] | None = None
        self.changed: dict[str, None] = {}
        """What was changed by others than a fetch."""

    def note(self) -> None:
        """Takes down what they are: a pass begins, or the dataset itself has just fetched."""
        self._noted = dict(simple_in(self._dataset))

    def end(self) -> None:
        """Forgets it: between two passes a loop may change what it likes."""
        self._noted = None

    def look(self) -> None:
        """Compares what they are with what was taken down."""
        if self._noted is not None:
            now = dict(simple_in(self._dataset))
            self.compare(self._noted, now)

    def compare(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Notes what differs; what is no number any more, a file that was opened say, does not."""
        for path, value in then.items():
            if now.get(path, _GONE) is not value and now.get(path, value) != value:
                self.changed[path] = None


class _Among(Search):
    """A search for some objects among what data holds and its code names."""

    def __init__(self, root: object, objects: Iterable[object]) -> None:
        self._those = {_place_of(each) for each in objects}
        self.finds_one = False
        super().__init__(root, (), depth_max=_DEPTH_MAX, objects_max=_OBJECTS_MAX)

    def _visit_child(self, child: object, way: str, depth: int, most: int | None) -> None:
        self.finds_one |= _place_of(child) in self._those
        super()._visit_child(child, way, depth, most)

    def _enter_named(
        self, namespace: Mapping[str, object], name: str, depth: int, most: int
    ) -> None:
        self.finds_one |= _place_of(namespace[name]) in self._those
        super()._enter_named(namespace, name, depth, most)


def holds_one_of(data: object, objects: Iterable[object]) -> bool:
    """Whether data reads one of some objects, or a view of its memory."""
    objects = list(objects)
    return bool(objects) and _Among(data, objects).finds_one


def _place_of(value: object) -> object:
    is_plain = isinstance(value, torch.Tensor) and value.layout is torch.strided
    memory = value.untyped_storage().data_ptr() if is_plain else 0  # type: ignore[attr-defined]
    return ("memory", memory) if memory else id(value)


def versions_of(loader: torch_data.DataLoader[Any]) -> dict[str, tuple[int, int]]:
    """Returns what differs once others have changed what PyTorch's own samplers and data read."""
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    found: dict[str, Any] = {}
    if type(sampler) in {torch_data.WeightedRandomSampler, torch_data.SubsetRandomSampler}:
        found = {f"sampler's {n}": getattr(sampler, n, None) for n in ("weights", "indices")}
    if type(loader.dataset) is torch_data.TensorDataset:
        found |= {f"tensors[{n}]": each for n, each in enumerate(loader.dataset.tensors)}
    tensors = {name: each for name, each in found.items() if isinstance(each, torch.Tensor)}
    return {n: (id(t), 0 if t.is_inference() else t._version) for n, t in tensors.items()}


def _of_class(kind: type) -> dict[str, Any]:
    """Returns what objects of a user's class have as long as they have none of their own."""
    bases = [base for base in reversed(kind.__mro__) if is_of_users_class(base)]
    own = ((name, value) for base in bases for name, value in list(vars(base).items()))
    return {n: value for n, value in own if type(value) in UNCHANGING and not n.startswith("__")}


def simple_in(dataset: Any) -> Iterator[tuple[str, Any]]:
    """Yields the numbers, switches and words of an object and its parts, by path."""
    parts: list[tuple[str, Any]] = [("", dataset)]
    for prefix, part in parts:
        for name, value in {**_of_class(type(part)), **attributes_of(part)}.items():
            if type(value) in UNCHANGING and value is not None:
                yield prefix + name, value
                continue
            held = value[:_PARTS_MAX] if isinstance(value, list | tuple) else [value]
            for each in held:
                if is_of_users_class(type(each)) and len(parts) < _PARTS_MAX:
                    parts.append((f"{prefix}{name}.", each))
