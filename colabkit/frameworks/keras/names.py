"""Names for a model's variables that are the same each time the notebook's cells run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras

_COUNTED = re.compile(r"^(?P<base>.+?)_(?P<number>\d+)$")
# What Keras calls a variable that was given no name, add_weight(shape=...) for example.
_UNNAMED = re.compile(r"^variable(?:_(?P<number>[1-9]\d*))?$")


def stable_names(model: keras.Model, variables: Sequence[Any]) -> list[str]:
    """Returns a unique name for each variable.

    Keras counts the layers and variables it names by itself over the whole session ("dense_7",
    "variable_4"); here they are counted over the model, so that a rebuilt model has the same names.

    Args:
        model: The model the variables are part of.
        variables: Its variables, in its own order.
    """
    automatic = {type(layer).__name__.lower() for layer in layers_of(model)}
    renumbered: dict[str, str] = {}
    counts: dict[str, int] = {}
    names: list[str] = []
    for variable in variables:
        parts = variable.path.split("/")
        if len(parts) > 1 and parts[0] == model.name:
            parts = parts[1:]
        for place, part in enumerate(parts[:-1]):
            if part not in renumbered:
                renumbered[part] = _renumbered(part, automatic, counts)
            parts[place] = renumbered[part]
        names.append("/".join(parts))
    return list(_unique(with_variables_counted(names)))


def with_variables_counted(names: Iterable[str]) -> list[str]:
    """Returns names with the variables that Keras has named by itself counted over them alone.

    Example:
        >>> with_variables_counted(["dense/kernel", "own/variable_7", "own/variable_8"])
        ['dense/kernel', 'own/variable', 'own/variable_1']
    """
    cut = [name.rpartition("/") for name in names]
    matches = [_UNNAMED.match(last) for _, _, last in cut]
    numbers = sorted({int(match["number"] or 0) for match in matches if match})
    ranks = {
        number: f"variable_{rank}" if rank else "variable" for rank, number in enumerate(numbers)
    }
    return [
        f"{owner}{slash}{ranks[int(match['number'] or 0)] if match else last}"
        for (owner, slash, last), match in zip(cut, matches, strict=True)
    ]


def layers_of(model: keras.Model) -> list[Any]:
    """Returns the model itself and every layer in it, at any depth."""
    found: dict[int, Any] = {id(model): model}
    pending: list[Any] = [model]
    while pending:
        layer = pending.pop()
        for inner in getattr(layer, "_layers", ()):
            if id(inner) not in found:
                found[id(inner)] = inner
                pending.append(inner)
    return list(found.values())


def _renumbered(part: str, automatic: set[str], counts: dict[str, int]) -> str:
    counted = _COUNTED.match(part)
    base = counted["base"] if counted else part
    # Keras names a layer after its class: MyBlock is my_block, my_block_1, ...
    if base.replace("_", "") not in automatic:
        return part
    number = counts.get(base, 0)
    counts[base] = number + 1
    return f"{base}_{number}" if number else base


def _unique(names: Iterable[str]) -> Iterable[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}~{seen[name]}"
