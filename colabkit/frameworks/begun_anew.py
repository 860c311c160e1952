"""What is said of a loop's own variables, which no checkpoint holds."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from colabkit.frameworks.estimators import is_estimator
from colabkit.frameworks.state_pairs import has_no_state

_ANY = "[...]"
_GIVE = " give it state_dict and load_state_dict, and"


def begun_anew(
    paths: Iterable[str],
    values: Mapping[str, Any] = MappingProxyType({}),
    taken: Collection[str] = (),
    *,
    of_pieces: bool = False,
) -> tuple[str, ...]:
    """Returns sentences on variables that begin anew at a resume: ``best``, ``self.best``.

    Args:
        paths: They.
        values: What is known of what they are, by path.
        taken: Names that others have.
        of_pieces: Whether training makes pieces, so that what is not there yet may be one.
    """
    named = _names_of(paths, taken)
    return tuple(
        _said_of(path, name, values.get(path, ...), of_pieces=of_pieces)
        for path, name in named.items()
    )


def _said_of(path: str, name: str, value: Any, *, of_pieces: bool) -> str:
    if is_estimator(value):
        return left_out(path, trains_others=False)
    said = f"the loop's {_shown(path)} begins anew at a resume:"
    if hasattr(type(value), "iloc"):  # of pandas, which only pickle could store
        return f"{said} keep its values in arrays, which run.state() takes"
    give = _GIVE if value is not ... and has_no_state(value) else ""
    return f"{said}{give} keep it{_way(path, name, value, of_pieces=of_pieces)}"


def _way(path: str, name: str, value: Any, *, of_pieces: bool) -> str:
    """Returns how a variable is kept: of what is in pieces ``run.state`` would be an error."""
    if may_be_in_pieces(value, of_pieces=of_pieces):
        return f" in an attribute of the model (model.{name}): run.state() takes no pieces"
    where = ", where it is made," if ":" in path else ""
    return f"{where} with run.state({name}={code_of(path)})"


def chosen_anew(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns sentences on functions, losses and the like that the first ones are again."""
    return tuple(
        f"the loop's {_shown(path)} begins anew at a resume: set it in each turn, by run.epoch or"
        " run.step"
        for path in paths
    )


def replaced(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns sentences on objects of the run that a loop puts others in the place of."""
    return tuple(
        f"the loop's {_shown(path)} becomes another than the one passed to Run, with which a resume"
        " goes on: change that one itself (load_state_dict, param_groups)"
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
    given = f"{name_of(path)}={code_of(path)}"
    if _ANY in path:
        row, _, rest = path.partition(_ANY)
        each = code_of(f"each{rest}")
        name = name_of(path)
        given = f'objects={{f"{name}_{{n}}": {each} for n, each in enumerate({row})}}'
    return f"the loop's {_shown(path)} begins anew at a resume: pass {given} to Run{more}"


def changes(path: str) -> str:
    """Returns a sentence on an object that training changes and a run was not given."""
    is_code = not any(each in path for each in (_ANY, "(...)", ":"))
    given = f": Run(..., {name_of(path)}={path})" if is_code else " to Run by a name of its own"
    return f"the loop changes {_shown(path)}, which no object of the run holds (pass it{given})"


def made_again(values: Mapping[str, Any], *, of_pieces: bool = False) -> tuple[str, ...]:
    """Returns sentences on variables that a resume makes again, with weights of a later step.

    Args:
        values: What they are, by path.
        of_pieces: As in ``begun_anew``.
    """
    found = []
    for path, value in values.items():
        name = name_of(path)
        way = f" (kept = run.state({name}=None) before, kept.{name} = {code_of(path)} where it is"
        if may_be_in_pieces(value, of_pieces=of_pieces):
            way = f" in an attribute of the model (model.{name} = {code_of(path)} where it is"
        found.append(
            f"{path} is made with the model, and a resume would make it with later weights: keep it"
            f"{way} made)"
        )
    return tuple(found)


def may_be_in_pieces(value: Any, *, of_pieces: bool) -> bool:
    """Whether any tensor in it is one of which each process holds a piece, or will be."""
    if isinstance(value, list | tuple | dict) and value:
        each = value.values() if isinstance(value, dict) else value
        return any(may_be_in_pieces(e, of_pieces=False) for e in each)
    return hasattr(type(value), "device_mesh") or (of_pieces and _is_unset(value))


def _is_unset(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple | dict) and not value)


def is_row_of(value: Any, own: Collection[int]) -> bool:
    """Whether it is one of some objects, given by identity, or a list or dict of them alone."""
    parts = value.values() if isinstance(value, dict) else value
    parts = list(parts) if isinstance(value, dict | list | tuple | set) else [value]
    return bool(parts) and all(id(each) in own for each in parts)


def code_of(path: str) -> str:
    """Returns code for what a path leads to; where it leads to any part of a row, for all of them.

    Example:
        >>> code_of("self.best"), code_of("paces[...].count")
        ('self.best', '[each.count for each in paces]')
    """
    row, found, rest = path.rpartition(":")[2].partition(_ANY)
    return f"[{code_of(f'each{rest}')} for each in {row}]" if found else row


def _shown(path: str) -> str:
    return path.replace(f".values(){_ANY}", _ANY).removeprefix(":")


def _names_of(paths: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """Returns a name for each path, none taken and no two alike: a run would take them for one."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        whole = re.sub(r"\W+", "_", _shown(path)).strip("_")
        names = itertools.chain(
            [name_of(path), whole], (f"{whole}_{n}" for n in itertools.count(2))
        )
        found[path] = next(each for each in names if each not in {*taken, *found.values()})
    return found


def name_of(path: str) -> str:
    """Returns what an object may be called as an argument.

    Example:
        >>> name_of("trainer._teacher"), name_of("optimizers['b']")
        ('teacher', 'optimizers_b')
    """
    path = _shown(path).removesuffix(".__self__")
    name = re.split(r"[.:](?![^\[]*\])", path)[-1]
    name = re.sub(r"\W+", "_", name).strip("_")
    is_name = name.isidentifier() and not keyword.iskeyword(name)
    return name if is_name else f"value_{name}".strip("_")
