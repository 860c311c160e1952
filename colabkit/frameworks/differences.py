"""What differs between two nested mappings, and how that is said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def differences(then: Any, now: Any) -> dict[str, tuple[object, object]]:
    """Returns what differs between two nested mappings, as name: (then, now)."""
    return dict(_walk("", then, now))


def _walk(path: str, then: Any, now: Any) -> Iterator[tuple[str, tuple[object, object]]]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*then, *now]):
            yield from _walk(f"{path} {key}".strip(), then.get(key), now.get(key))
    elif then != now:
        yield path.removeprefix("objects ").removeprefix("data "), (then, now)


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
    """Returns what differs of what both know."""
    both = [name for name in now if name in then]
    return differences({n: _keyed(then[n]) for n in both}, {n: _keyed(now[n]) for n in both})


def _keyed(value: Any) -> Any:
    """Returns the settings of several groups by the number of each."""
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        return value[0] if len(value) == 1 else {f"group {n}": each for n, each in enumerate(value)}
    return value


def phrases_of(changed: Mapping[str, tuple[object, object]]) -> list[str]:
    """Returns what differs in words, values where they are short."""
    short = str | int | float
    return [
        f"{name} {then} → {now}" if isinstance(then, short) and isinstance(now, short) else name
        for name, (then, now) in changed.items()
    ]


def digest_of(names: Iterable[str]) -> str:
    """Returns a short mark that other names, or another order, do not have."""
    return hashlib.blake2b("\n".join(names).encode(), digest_size=4).hexdigest()
