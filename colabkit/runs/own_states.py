"""What each of several processes has for itself, held by the one checkpoint of all.

Weights are the same in each. Metrics over a process's own batches, kept values, buffers and what
modules or code remember may not be, nor what an optimizer keeps that shares its work out by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

Where = tuple[str | int, ...]
"""Where a state lies in the sections of a checkpoint."""

_OF_RUN = "run"


@dataclasses.dataclass(frozen=True, slots=True)
class OwnStates:
    """The states of the processes behind the first, whose own lie where they always do.

    Attributes:
        processes: How many there are; 0 where all have the same.
        states: By where they lie, one of each process but the first.
        names: What the user calls those without which another number of processes is not exact.
        lacking: By where they lie, the processes but the first that have none.
    """

    processes: int = 0
    states: Mapping[Where, Sequence[Any]] = dataclasses.field(default_factory=dict)
    names: Sequence[str] = ()
    lacking: Mapping[Where, Sequence[int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_processes(
        cls,
        states: Sequence[Mapping[Where, Any]],
        *,
        having: Sequence[Collection[Where]],
        matters: Callable[[Where], bool],
    ) -> OwnStates:
        """Returns those that are given of each process that has any.

        Args:
            states: What is given of each process.
            having: Where each process has something.
            matters: Whether another number of processes needs all of a place's states.
        """
        paths = dict.fromkeys(path for each in states for path in each)
        ranks = range(len(states))
        whole = [p for p in paths if all(p in states[r] for r in ranks if p in having[r])]
        names = list(dict.fromkeys(map(name_of, filter(matters, whole))))
        found = {path: [each.get(path) for each in states[1:]] for path in whole}
        lacking = {path: [r for r in ranks[1:] if path not in states[r]] for path in whole}
        return cls(len(states), found, names, {p: each for p, each in lacking.items() if each})

    def changes(self, processes: int) -> tuple[str, ...]:
        """Returns why so many processes cannot go on exactly."""
        if self.processes in {0, processes} or not self.names:
            return ()
        names = ", ".join(self.names)
        return (
            f"each of {self.processes} processes had {names} of its own, now {processes} go on",
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns them as plain values and tensors; nothing where all have the same."""
        if not self.processes:
            return {}
        rows = [[list(path), list(states)] for path, states in self.states.items()]
        lacking = [[list(path), list(ranks)] for path, ranks in self.lacking.items()]
        found = {"processes": self.processes, "states": rows, "names": list(self.names)}
        return found | ({"lacking": lacking} if lacking else {})

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> OwnStates:
        """Returns what ``state_dict`` gave."""
        states = {tuple(path): states for path, states in state.get("states", ())}
        lacking = {tuple(path): ranks for path, ranks in state.get("lacking", ())}
        return cls(state.get("processes", 0), states, state.get("names", ()), lacking)


def with_own(sections: Mapping[str, Any], rank: int, processes: int) -> Mapping[str, Any]:
    """Returns the sections of a checkpoint as the process of a rank had them.

    Args:
        sections: Those of the first process, whose states stay where others go on in its number.
        rank: Number of the process.
        processes: How many there are now.

    Example:
        >>> own = OwnStates(2, {("objects", "mean"): [5.0]}, ["mean"])
        >>> saved = {"objects": {"mean": 3.0}, "run": {"own": own.state_dict()}}
        >>> with_own(saved, 1, 2)["objects"]
        {'mean': 5.0}
        >>> with_own(saved, 0, 2)["objects"]
        {'mean': 3.0}
        >>> alone = dataclasses.replace(own, states={("objects", "mean"): [None]})
        >>> alone = dataclasses.replace(alone, lacking={("objects", "mean"): [1]})
        >>> with_own({**saved, "run": {"own": alone.state_dict()}}, 1, 2)["objects"]
        {}
    """
    own = OwnStates.of_state(sections.get(_OF_RUN, {}).get("own", {}))
    if not rank or own.processes != processes:
        return sections
    for path, states in own.states.items():
        if rank in own.lacking.get(path, ()):
            sections = _without(sections, path)
        else:
            sections = _with(sections, path, states[rank - 1])
    return sections


def _without(tree: Mapping[Any, Any], path: Where) -> Mapping[Any, Any]:
    first, *rest = path
    if first not in tree:
        return tree
    if rest:
        return {**tree, first: _without(tree[first], tuple(rest))}
    return {key: each for key, each in tree.items() if key != first}


def _with(tree: Mapping[Any, Any], path: Where, state: Any) -> dict[Any, Any]:
    first, *rest = path
    inner = _with(tree.get(first, {}), tuple(rest), state) if rest else state
    return {**tree, first: inner}


def own_of_run(kept: Mapping[str, Any], stops: Mapping[int, Any]) -> dict[Where, Any]:
    """Returns, by where it lies, what a process may have of its own in the run's section.

    Args:
        kept: The values that its loop keeps.
        stops: What was small at the head of the epoch under way, and behind its passes.
    """
    found: dict[Where, Any] = {(_OF_RUN, "kept", name): each for name, each in kept.items()}
    for passed, stop in stops.items():
        for part, states in stop.items():
            place: Where = (_OF_RUN, "stops", passed, part)
            # All have the same weights.
            found |= {(*place, name): e for name, e in states.items() if name != "weights"}
    return found


def name_of(path: Where) -> str:
    """Returns what the user calls what lies there.

    Example:
        >>> name_of(("run", "kept", "best")), name_of(("objects", "modules", "model", "python"))
        ('best', 'model (its attributes)')
    """
    if path[:2] == ("objects", "modules"):
        kind = {"python": "attributes", "generators": "generators"}.get(str(path[3]), "buffers")
        return f"{path[2]} (its {kind})"
    if path[:2] == ("objects", "optimizers"):
        return f"{path[2]} (its state)"
    if path[0] == "objects":
        return str(path[2])
    if path[0] == "gradients":
        return f"{path[1]} (gradients that wait)" if path[1] else "gradients that wait"
    if path[0] == _OF_RUN:
        return str(path[-1])
    return f"{path[0]} (its buffers)"
