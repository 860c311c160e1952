"""Metrics that Keras makes only when a step first needs them: their values wait for that."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from colabkit.frameworks.keras.slots import assign_all

# What a compiled model makes the metrics of its outputs and its losses by.
_MAKERS = ("_compile_metrics", "_compile_loss")
_TARGETS_AND_OUTPUTS = 2


class LateMetrics:
    """The metrics of one model, some of which may not be there yet.

    A loop of one's own has Keras make them within its first step. What they were made for is noted,
    and a resume has them made at once: its loop may read them before it takes a step. Where nothing
    is noted, they take their values as they are made, unless all metrics are set back by then.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._waiting: dict[str, Sequence[Any]] = {}
        self._made_for: dict[str, list[Any]] = {}
        for name, maker in self._makers():
            if not maker.built:
                maker.build = functools.partial(self._build, name, maker, maker.build)

    def listed(self) -> list[Any]:
        """Returns the variables of those that are there."""
        return list(self._model.metrics_variables)

    def spans(self) -> dict[str, list[int]]:
        """Returns, by who makes them, where the late ones begin in the list, and their number."""
        places = {id(variable): place for place, variable in enumerate(self.listed())}
        spans = {}
        for name, maker in self._makers():
            own = [places[id(v)] for v in maker.variables if id(v) in places]
            if own and own == list(range(own[0], own[0] + len(own))):
                spans[name] = [own[0], len(own)]
        return spans

    def made_for(self) -> dict[str, list[Any]]:
        """Returns the forms of the targets and outputs that the late ones were made for."""
        return dict(self._made_for)

    def make(self, made_for: Mapping[str, Sequence[Any]]) -> None:
        """Has Keras make those that are still to be made, for what has these forms."""
        for name, maker in self._makers():
            if name in made_for and not maker.built:
                maker.build(*map(_of_form, made_for[name]))

    def restore(self, values: Sequence[Any], spans: Mapping[str, Sequence[int]]) -> None:
        """Gives them the values of a list, and those that are still to be made once they are."""
        late = {name: values[start : start + count] for name, (start, count) in spans.items()}
        taken = {place for start, count in spans.values() for place in range(start, start + count)}
        makers = {name: maker for name, maker in self._makers() if name in late}
        if all(maker.built for maker in makers.values()):
            assign_all(self.listed(), values)
            return
        there = {id(variable) for maker in makers.values() for variable in maker.variables}
        early = [variable for variable in self.listed() if id(variable) not in there]
        assign_all(early, [each for place, each in enumerate(values) if place not in taken])
        for name, maker in makers.items():
            if maker.built:
                assign_all(maker.variables, late[name])
            else:
                self._wait_for(name, late[name])

    def _makers(self) -> list[tuple[str, Any]]:
        found = [(name, getattr(self._model, name, None)) for name in _MAKERS]
        return [(name, maker) for name, maker in found if hasattr(maker, "built")]

    def _wait_for(self, name: str, values: Sequence[Any]) -> None:
        self._waiting[name] = values
        for owner, method in self._resets():
            if method not in vars(owner):
                setattr(owner, method, functools.partial(self._reset, getattr(owner, method)))

    def _build(self, name: str, maker: Any, build: Any, *given: Any, **named: Any) -> None:
        vars(maker).pop("build", None)
        build(*given, **named)
        made_for = [*given, *named.values()]
        if len(made_for) == _TARGETS_AND_OUTPUTS:
            with contextlib.suppress(
                AttributeError, TypeError, ValueError
            ):  # no tensors: they wait
                self._made_for[name] = [_form_of(each) for each in made_for]
        if name in self._waiting:
            assign_all(maker.variables, self._waiting.pop(name))
            self._end_waiting()

    def _reset(self, reset: Any) -> None:
        self._waiting.clear()
        self._end_waiting()
        reset()

    def _end_waiting(self) -> None:
        if self._waiting:
            return
        for owner, method in self._resets():
            if method in vars(owner):
                delattr(owner, method)

    def _resets(self) -> Iterator[tuple[Any, str]]:
        """Yields how a loop sets all metrics back: at once, or one by one of those there are."""
        yield self._model, "reset_metrics"
        for name in ("_loss_tracker", "_compile_metrics"):
            if (metric := getattr(self._model, name, None)) is not None:
                yield metric, "reset_state"


def _form_of(value: Any) -> Any:
    """Returns shapes and dtypes, in the nesting that a value has."""
    if isinstance(value, Mapping):
        return {"keys": {key: _form_of(each) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return {"items": [_form_of(each) for each in value]}
    shape = [None if each is None else int(each) for each in value.shape]
    return {"shape": shape, "dtype": keras.backend.standardize_dtype(value.dtype)}


def _of_form(form: Mapping[str, Any]) -> Any:
    if "keys" in form:
        return {key: _of_form(each) for key, each in form["keys"].items()}
    if "items" in form:
        return [_of_form(each) for each in form["items"]]
    return keras.KerasTensor(tuple(form["shape"]), form["dtype"])
