"""Arrays that steps go by and something writes into, where no source says so: through a view."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from colabkit.frameworks.begun_anew import begun_anew
from colabkit.frameworks.bystanders import Bystanders
from colabkit.frameworks.users_own import attributes_of
from colabkit.runs.loop_values import arrays_in, is_array
from colabkit.storage import hash_of

_SAMPLED, _DEPTH_MAX = 1024, 5
# From where to where memory is one's own.
_Span = tuple[int, int]


class ArraysBeside:
    """Finds those of the arrays that the steps of loops go by which change, and nobody holds.

    ``row = bank[3]`` and then ``row += x``, a view from a function, one in an attribute: what they
    write into is seen once it has changed.

    Args:
        held: Returns what a checkpoint holds.
    """

    def __init__(self, held: Callable[[], Iterable[Any]]) -> None:
        self._held = held
        self._known = Bystanders(_mark_of)
        self._named: list[weakref.ref[Any]] = []
        self._reasons: dict[str, None] = {}

    def watch(self, found: Mapping[str, Any], *, but: Iterable[Any]) -> None:
        """Takes down arrays, or rows of such, by what leads to them.

        Args:
            found: They, by path.
            but: What is named already: nothing is said of another name for it.
        """
        named = (each for value in but for each in arrays_in(value))
        self._named += [weakref.ref(each) for each in named if _can_be_written(each)]
        self._known.take_down(
            (path, each) for path, value in found.items() for each in arrays_in(value)
        )

    def are_held(self, value: Any) -> bool:
        """Whether it is an array, or a row of such, that lies in what a checkpoint holds."""
        arrays = arrays_in(value)
        spans = _merged(span for each in self._held() for span in _spans_of(each)) if arrays else []
        return bool(arrays) and all(_lies_within(each, spans) for each in arrays)

    def reasons(self) -> tuple[str, ...]:
        """Returns what was found up to now."""
        changed = [each for each in self._known.changed() if not self.are_held(each.value)]
        if changed:
            named = [span for each in self._named for span in _spans_of(each())]
            paths = (path for path, each in changed if not _overlaps(each, named))
            self._reasons |= dict.fromkeys(begun_anew(dict.fromkeys(paths)))
        return tuple(self._reasons)


def _can_be_written(array: Any) -> bool:
    return isinstance(array, np.ndarray) or hasattr(array, "_version")


def _mark_of(array: Any) -> object | None:
    """Returns what a write changes; None of arrays that nobody can write into, or sample.

    PyTorch counts those through any view of its own; a sample shows those through NumPy's.
    """
    if isinstance(array, np.ndarray):
        return None if array.dtype.hasobject else _hash_of(array.flat[:: _step(array.size)])
    if not _can_be_written(array) or array.is_inference():
        return None
    is_near = array.device.type == "cpu" and array.is_contiguous() and not array.is_complex()
    sample = array.detach().view(-1)[:: _step(array.numel())].double().numpy() if is_near else ()
    return array._version, array.data_ptr(), _hash_of(sample)


def _step(size: int) -> int:
    return size // _SAMPLED | 1


def _hash_of(sample: Any) -> str:
    return hash_of(np.ascontiguousarray(sample).reshape(-1).view(np.uint8))


def _span_of(array: Any) -> list[_Span]:
    """Returns where the memory of an array lies; nothing of other libraries' and of pieces."""
    if isinstance(array, np.ndarray):
        return [np.lib.array_utils.byte_bounds(array)]
    with contextlib.suppress(Exception):  # of a kind of its own
        begin, width = array.data_ptr(), array.element_size()
        steps = zip(array.shape, array.stride(), strict=True)
        reach = sum((size - 1) * step for size, step in steps)
        return [(begin, begin + (reach + 1) * width)] if begin else []
    return []


def _spans_of(value: Any, depth: int = 0) -> Iterator[_Span]:
    """Yields where the arrays lie that an object has."""
    if is_array(value):
        yield from _span_of(value)
        return
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, list | tuple | set | dict):
        parts = [*(value.values() if isinstance(value, dict) else value)]
    else:
        parts = [*attributes_of(value).values()]
        for name in ("parameters", "buffers"):
            parts += getattr(value, name)() if hasattr(type(value), name) else ()
    for each in parts:
        yield from _spans_of(each, depth + 1)


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Returns spans as few: those that meet are one."""
    merged: list[_Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def _lies_within(array: Any, spans: Iterable[_Span]) -> bool:
    own = _span_of(array)
    return bool(own) and any(low <= own[0][0] and own[0][1] <= high for low, high in spans)


def _overlaps(array: Any, spans: Iterable[_Span]) -> bool:
    own = _span_of(array)
    return bool(own) and any(low < own[0][1] and own[0][0] < high for low, high in spans)
