"""Whether a loop changes its dataset while batches are fetched from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from colabkit.frameworks.attributes import UNCHANGING
from colabkit.frameworks.users_own import attributes_of, is_of_users_class

_PARTS_MAX = 64
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
        self._noted = dict(_simple_in(self._dataset))

    def end(self) -> None:
        """Forgets it: between two passes a loop may change what it likes."""
        self._noted = None

    def look(self) -> None:
        """Compares what they are with what was taken down."""
        if self._noted is not None:
            now = dict(_simple_in(self._dataset))
            for path, value in self._noted.items():
                # What is no number any more, a file that was opened say, is not compared.
                if now.get(path, _GONE) is not value and now.get(path, value) != value:
                    self.changed[path] = None


def _of_class(kind: type) -> dict[str, Any]:
    """Returns what objects of a user's class have as long as they have none of their own."""
    bases = [base for base in reversed(kind.__mro__) if is_of_users_class(base)]
    own = ((name, value) for base in bases for name, value in list(vars(base).items()))
    return {n: value for n, value in own if type(value) in UNCHANGING and not n.startswith("__")}


def _simple_in(dataset: Any) -> Iterator[tuple[str, Any]]:
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
