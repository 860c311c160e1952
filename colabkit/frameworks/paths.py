"""Paths from an object to what it keeps: ``rows[0].mean``."""

from __future__ import annotations

import ast
import collections
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from colabkit.frameworks.users_own import attributes_of, set_attribute

Step = tuple[Literal["attribute", "item"], Any]
_STEP = re.compile(
    r"""\[(?P<key>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\]]*)\]|\.?(?P<name>[^.\[]+)"""
)
_NOTHING = object()
UNCHANGING = frozenset({bool, int, float, complex, str, bytes, type(None)})
# A look at as many takes 2 ms.
_DEPTH_MAX, _LOOKED_AT_MAX, _ENDS_MAX = 3, 1_000, 100


def steps_of(path: str) -> list[Step]:
    """Returns the attributes and items on a path.

    Example:
        >>> steps_of("rows['a.b'].mean")
        [('attribute', 'rows'), ('item', 'a.b'), ('attribute', 'mean')]
    """
    found: list[Step] = []
    for each in _STEP.finditer(path):
        if each["name"] is not None:
            found.append(("attribute", each["name"]))
        else:
            found.append(("item", _key_of(each["key"])))
    return found


def _key_of(written: str) -> Any:
    """Returns a key as it was; of one that has no literal, infinity say, what stands there."""
    try:
        return ast.literal_eval(written)
    except (SyntaxError, ValueError):
        return written


def reached(owner: Any, steps: Sequence[Step]) -> Any:
    """Returns what steps lead to, None where they lead nowhere."""
    for kind, key in steps:
        if kind == "item":
            owner = _item_of(owner, key)
        else:
            own = attributes_of(owner).get(key, _NOTHING)
            owner = getattr(owner, key, None) if own is _NOTHING else own
    return owner


def _item_of(holder: Any, key: Any) -> Any:
    if isinstance(holder, dict):
        return dict.get(holder, key)
    is_row = isinstance(holder, list | tuple | collections.deque)
    return holder[key] if is_row and key < len(holder) else None


def put_at(owner: Any, steps: Sequence[Step], value: Any) -> bool:
    """Puts a value where steps lead, in another tuple where that is one; returns whether it did."""
    if not steps:
        return False
    *above, (kind, key) = steps
    holder = reached(owner, above)
    if kind == "attribute":
        if holder is not None:
            set_attribute(holder, key, value)
        return holder is not None
    if isinstance(holder, dict):
        holder[key] = value
        return True
    if not isinstance(holder, list | tuple | collections.deque) or key >= len(holder):
        return False
    if isinstance(holder, tuple):
        items = (value if place == key else each for place, each in enumerate(holder))
        return put_at(owner, above, tuple.__new__(type(holder), items))
    holder[key] = value
    return True


def within(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields a value and what containers in it hold, each by its path.

    Of very many the first and the last, the outer ones before what lies in them.

    Example:
        >>> [path for path, _ in within("rows", [[1, 2], {"a": []}])]
        ['rows', 'rows[0]', 'rows[1]', "rows[1]['a']"]
    """
    return itertools.islice(_within(path, value), _LOOKED_AT_MAX)


def _within(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    waiting = collections.deque([(path, value, 0)])
    while waiting:
        path, value, depth = waiting.popleft()
        if type(value) in UNCHANGING:
            continue
        yield path, value
        if depth < _DEPTH_MAX and isinstance(value, list | tuple | collections.deque | dict):
            for key, part in _some_of(value):
                if type(part) not in UNCHANGING and type(key) in UNCHANGING:
                    waiting.append((f"{path}[{key!r}]", part, depth + 1))


def _some_of(value: Any) -> list[tuple[Any, Any]]:
    """Returns what a container holds, by key; of very many the first and the last."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    if len(value) <= 2 * _ENDS_MAX:
        return list(pairs)
    first = list(itertools.islice(pairs, _ENDS_MAX))
    return [*first, *itertools.islice(pairs, len(value) - 2 * _ENDS_MAX, None)]
