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

_WHOLE_BYTES, _SAMPLED, _DEPTH_MAX = 1 << 20, 4096, 5
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
    """Returns what a write changes; None of arrays that nobody can write into, or read here.

    PyTorch counts those through any view of its own; the values show those through NumPy's, of a
    large array some of them.
    """
    if isinstance(array, np.ndarray):
        return None if array.dtype.hasobject else _hash_of(array)
    if not _can_be_written(array) or array.is_inference():
        return None
    is_near = array.device.type == "cpu"
    return array._version, array.data_ptr(), _hash_of(_as_numpy(array)) if is_near else ""


def _as_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    """Returns its very memory; of a kind that NumPy has not, bfloat16 say, as it can."""
    own = tensor.detach().resolve_conj().resolve_neg()
    try:
        found: np.ndarray[Any, Any] = own.numpy()
    except TypeError:
        found = own.double().numpy()
    return found


def _hash_of(array: np.ndarray[Any, Any]) -> str:
    step = array.size // _SAMPLED if array.nbytes > _WHOLE_BYTES else 1
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
    return hash_of(np.ascontiguousarray(flat[::step]).view(np.uint8))


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
    """Yields where the arrays lie that a checkpoint has of an object.

    Of one with a state of its own nobody knows which of its arrays are in that: a loader knows its
    data, and saves where it stands.
    """
    if is_array(value):
        yield from _span_of(value)
        return
    if hasattr(type(value), "parameters") and hasattr(type(value), "buffers"):
        parts = [*value.parameters(), *value.buffers()]
    elif isinstance(value, list | tuple | dict):
        parts = [*(value.values() if isinstance(value, dict) else value)]
    else:
        groups = attributes_of(value).get("param_groups", ())
        parts = [each for group in groups for each in group["params"]]
    for each in parts if depth < _DEPTH_MAX else ():
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
