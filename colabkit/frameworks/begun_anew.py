"""What is said of a loop's own variables, which no checkpoint holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from colabkit.frameworks.state_pairs import has_no_state

_GIVE = " give it state_dict and load_state_dict, and"


def begun_anew(
    paths: Iterable[str], values: Mapping[str, Any] = MappingProxyType({})
) -> tuple[str, ...]:
    """Returns sentences on variables that begin anew at a resume: ``best``, ``self.best``.

    Args:
        paths: They.
        values: What is known of what they are, by path.
    """
    return tuple(
        f"the loop's {path} begins anew at a resume:"
        f"{_GIVE if has_no_state(values.get(path)) else ''} keep it with"
        f" run.state({name_of(path)}={path.rpartition(':')[2]})"
        for path in paths
    )


def read_on(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns sentences on iterators that steps read on by themselves."""
    return tuple(
        f"the loop reads {path} on by itself, which a resume begins anew: loop over what it reads"
        " with run.batches() or run.items()"
        for path in paths
    )


def remembers(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns sentences on functions that give again what they once drew, or made with a model."""
    return tuple(
        f"the loop's {path} remembers what it drew or made with the model, and has to do so again"
        f" at a resume: keep its answers in a dict with run.state({name_of(path)}={{}})"
        for path in paths
    )


def left_out(path: str, *, trains_others: bool) -> str:
    """Returns a sentence on an optimizer, a schedule or the like that a run was not given."""
    more = ", and the module that it trains" if trains_others else ""
    return f"the loop's {path} begins anew at a resume: pass {name_of(path)}={path} to Run{more}"


def changes(path: str) -> str:
    """Returns a sentence on an object that training changes and a run was not given."""
    return (
        f"the loop changes {path}, which no object of the run holds"
        f" (pass it: Run(..., {name_of(path)}={path}))"
    )


def made_again(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns sentences on variables that a resume makes again, with weights of a later step."""
    return tuple(
        f"{path} is made with the model, and a resume would make it with later weights: keep it"
        f" (kept = run.state({name}=...) before, kept.{name} = ... where it is made)"
        for path, name in ((each, name_of(each)) for each in paths)
    )


def is_row_of(value: Any, own: Collection[int]) -> bool:
    """Whether it is one of some objects, given by identity, or a list or dict of them alone."""
    parts = value.values() if isinstance(value, dict) else value
    parts = list(parts) if isinstance(value, dict | list | tuple | set) else [value]
    return bool(parts) and all(id(each) in own for each in parts)


def name_of(path: str) -> str:
    """Returns what an object may be called as an argument.

    Example:
        >>> name_of("trainer._teacher"), name_of("optimizers['b']")
        ('teacher', 'optimizers_b')
    """
    path = path.removesuffix(".__self__")
    name = re.split(r"[.:](?![^\[]*\])", path)[-1]
    name = re.sub(r"\W+", "_", name).strip("_")
    return name if name.isidentifier() else f"value_{name}".strip("_")
