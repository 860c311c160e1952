"""Boosters and estimators as objects with a state, in their own formats and never a pickle."""

from __future__ import annotations

import collections
import copyreg
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from colabkit.errors import ArgumentError, StateError
from colabkit.frameworks.exposed import expose
from colabkit.frameworks.users_own import package_of

_PACKAGES = ("xgboost", "lightgbm", "sklearn")
_OBJECT = "$object"
_NEW_OBJECT = getattr(copyreg, "__newobj__")  # noqa: B009  # what its types leave out
_DEPTH_MAX = 24
# What scikit-learn draws from where random_state is None: the run keeps it, and puts it back.
_GLOBAL_STREAM = np.random.mtrand._rand
_Seen = dict[int, tuple[int, Any]]
_Made = dict[int, Any]
_Holders = dict[int, tuple[Any, dict[str, None]]]
_GENERATORS = (np.random.RandomState, np.random.Generator)
_SHARES = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")


def is_estimator(value: object) -> bool:
    """Whether a value is of a library whose models are replaced, or grow, as they are trained."""
    return _package_of(value) in _PACKAGES and not isinstance(value, type)


def may_hold_estimators() -> bool:
    """Whether any of the libraries is loaded."""
    return any(package in sys.modules for package in _PACKAGES)


def _package_of(value: object) -> str:
    for base in type(value).__mro__:
        if (package := package_of(base)) in _PACKAGES:
            return package
    return ""


class EstimatorState:
    """A booster or estimator that is an attribute of the run, where the loop may put a new one.

    Args:
        attributes: The run's.
        name: What it is called.
        holders: By the identity of a generator, it and which objects of the run draw from it.
    """

    def __init__(self, attributes: dict[str, Any], name: str, holders: _Holders) -> None:
        self._attributes = attributes
        self._name = name
        self._holders = holders
        self._drawn: tuple[int, str] | None = None
        self._grown: tuple[int, int] | None = None
        self._draws_on = self._grows_in_place = False

    def state_dict(self) -> dict[str, Any]:
        """Returns what there is by now."""
        value = self._attributes[self._name]
        if value is None:
            return {}
        if not is_estimator(value):
            message = f"{self._name} is a {type(value).__name__} by now."
            hint = "Assign a booster or an estimator."
            raise StateError(message, where=self._name, hint=hint)
        self._inspect_draws(value)
        self._inspect_growth(value)
        seen: _Seen = {}
        state = _state_of(value, self._name, seen)
        for _, part in seen.values():
            if isinstance(part, _GENERATORS):
                self._holders.setdefault(id(part), (part, {}))[1][self._name] = None
        return state

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to draw from and no checkpoint can hold."""
        said = []
        if self._draws_on:
            said.append(
                f"{self._name} draws on where its last call left XGBoost's random numbers,"
                " whose place nothing can save (give each call another seed: run.step)"
            )
        if self._grows_in_place:
            said.append(
                f"{self._name} grows by update() on training data that no file holds (write"
                f" run.{self._name} = lightgbm.train(..., init_model=run.{self._name}))"
            )
        for _, names in self._holders.values():
            if len(names) > 1 and self._name == list(names)[-1]:
                said.append(
                    f"{' and '.join(names)} draw from one generator, and would each go on with"
                    " its own (give each a random_state of its own)"
                )
        return tuple(said)

    def _inspect_draws(self, value: Any) -> None:
        """XGBoost has one stream for the whole process, begun anew where the seed is another."""
        inner = value.get_booster() if _is_fitted_by_xgboost(value) else value
        if not _is_booster(inner, "xgboost"):
            return
        said = json.loads(inner.save_config())["learner"]
        seen = inner.num_boosted_rounds(), said["generic_param"]["seed"]
        before, self._drawn = self._drawn, seen
        is_same = before is not None and before[1] == seen[1] and before[0] != seen[0]
        self._draws_on |= is_same and _draws(said)

    def _inspect_growth(self, value: Any) -> None:
        """LightGBM goes on in update() from sums over its data, which no model file holds."""
        if _updates_in_place(value):
            before, self._grown = self._grown, (id(value), value.current_iteration())
            is_same = before is not None and before[0] == id(value)
            self._grows_in_place |= is_same and before != self._grown

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts it back: into the object that was passed where it can be changed."""
        if state.keys() & {"object", *_PACKAGES}:
            there = self._attributes[self._name]
            self._attributes[self._name] = restored(there, state)


def _is_fitted_by_xgboost(value: Any) -> bool:
    return hasattr(value, "get_booster") and bool(value.__sklearn_is_fitted__())


def _draws(settings: Any) -> bool:
    """Whether a booster's settings have it take samples or columns at random."""
    if isinstance(settings, list):
        return any(map(_draws, settings))
    if not isinstance(settings, Mapping):
        return False
    shares = [each for name, each in settings.items() if name in _SHARES and isinstance(each, str)]
    return any(float(share) < 1 for share in shares) or any(map(_draws, settings.values()))


def with_estimators(owner: Any, objects: Mapping[str, Any]) -> dict[str, Any]:
    """Makes boosters and estimators attributes of a run; returns what saves each in its place.

    What is None may become one: the first round of boosting makes the booster.

    Args:
        owner: The run.
        objects: By name.
    """
    found = dict(objects)
    drawn = {n: v for n, v in objects.items() if isinstance(v, _GENERATORS)}
    holders: _Holders = {id(value): (value, {name: None}) for name, value in drawn.items()}
    for name, value in objects.items():
        if _updates_in_place(value):
            message = (
                f"{name} is a Booster of LightGBM over its training data, which no file holds."
            )
            hint = (
                f"Begin with {name}=None, and write run.{name} = lightgbm.train(params, data, 5,"
                f" init_model=run.{name}) in the loop."
            )
            raise ArgumentError(message, argument=name, hint=hint)
        if is_estimator(value) or (value is None and not hasattr(owner, name)):
            expose(owner, name, value)
            found[name] = EstimatorState(vars(owner), name, holders)
    return found


def _state_of(value: Any, name: str, seen: _Seen) -> dict[str, Any]:
    return _booster_state(value) or {"object": _plain(value, (name,), seen)}


def _booster_state(value: Any) -> dict[str, Any] | None:
    if _is_booster(value, "xgboost"):
        return {"xgboost": np.frombuffer(value.save_raw("ubj"), np.uint8)}
    if _is_booster(value, "lightgbm"):
        text = value.model_to_string(num_iteration=-1)
        found = np.frombuffer(text.encode(), np.uint8)
        return {"lightgbm": found, "best_iteration": value.best_iteration}
    return None


def _is_booster(value: object, package: str) -> bool:
    booster = getattr(sys.modules.get(package), "Booster", None)
    return booster is not None and isinstance(value, booster)


def _updates_in_place(value: object) -> bool:
    """Whether a booster of LightGBM has kept the data that it is trained on."""
    return _is_booster(value, "lightgbm") and getattr(value, "train_set", None) is not None


def restored(there: Any, state: Mapping[str, Any]) -> Any:
    """Returns what a state was taken of, in the object that is there where that can be."""
    if "xgboost" in state:
        booster = there if there is not None else sys.modules["xgboost"].Booster()
        booster.load_model(bytearray(state["xgboost"].tobytes()))
        return booster
    if "lightgbm" in state:
        text = state["lightgbm"].tobytes().decode()
        booster = sys.modules["lightgbm"].Booster(model_str=text)
        # What it predicts with by itself; the file knows nothing of it.
        booster.best_iteration = state.get("best_iteration", booster.best_iteration)
        return booster
    made = _object(state["object"], {})
    if type(made) is not type(there):
        return made
    vars(there).clear()
    vars(there).update(vars(made))
    return there


def _plain(value: Any, path: tuple[str, ...], seen: _Seen) -> Any:
    """Returns a value as plain containers, arrays and numbers, its objects by class and state.

    Args:
        value: Any part of an estimator.
        path: How one would reach it.
        seen: The objects met so far: two parts that share one, a generator say, share it still.
    """
    if len(path) > _DEPTH_MAX:
        raise _unsavable(value, path)
    if isinstance(value, np.ndarray):
        return _plain_array(value, path, seen)
    if isinstance(value, dict) and type(value) is dict:
        pairs = [[key, _plain(each, (*path, str(key)), seen)] for key, each in value.items()]
        return {_OBJECT: "dict", "items": pairs}
    if type(value) in {collections.OrderedDict, collections.defaultdict}:
        factory = _plain(getattr(value, "default_factory", None), path, seen)
        pairs = [[key, _plain(each, (*path, str(key)), seen)] for key, each in value.items()]
        kind = type(value).__name__
        return {_OBJECT: "dict", "items": pairs, "kind": kind, "factory": factory}
    if type(value) in {list, tuple}:
        return type(value)(_plain(each, (*path, str(n)), seen) for n, each in enumerate(value))
    if isinstance(value, type | np.dtype):
        return _named(value, path)
    if isinstance(value, str | bytes | int | float | complex | np.generic | None):
        return value
    if value is _GLOBAL_STREAM:
        return {_OBJECT: "global stream"}
    if (booster := _booster_state(value)) is not None:
        return {_OBJECT: "booster", **booster}
    return _by_reduction(value, path, seen)


def _plain_array(value: Any, path: tuple[str, ...], seen: _Seen) -> Any:
    if type(value) is not np.ndarray:  # a mask would be lost
        raise _unsavable(value, path)
    if value.dtype.hasobject:
        items = [_plain(each, (*path, str(n)), seen) for n, each in enumerate(value.flat)]
        return {_OBJECT: "array", "shape": list(value.shape), "items": items}
    if value.dtype.kind in "biufc":
        return value
    said, rows = _form_of(value.dtype, path), np.zeros(value.shape, value.dtype)
    for field in said["names"]:  # what lies between them is whatever was in memory
        rows[field] = value[field]
    flat = np.frombuffer(rows.tobytes(), np.uint8)
    return {_OBJECT: "rows", "dtype": said, "shape": list(value.shape), "data": flat}


def _form_of(dtype: np.dtype[Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields of a row, the gaps between them included."""
    if dtype.fields is None or any(each[0].fields for each in dtype.fields.values()):
        raise _unsavable(dtype, path)
    return {
        "names": list(dtype.fields),
        "formats": [each[0].str for each in dtype.fields.values()],
        "offsets": [each[1] for each in dtype.fields.values()],
        "itemsize": dtype.itemsize,
    }


def _named(value: Any, path: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(value, np.dtype):
        return {_OBJECT: "dtype", "name": value.str}
    if not (home := _home_of(value)):
        raise _unsavable(value, path)
    return {_OBJECT: "class", "class": [home, value.__qualname__]}


_KNOWN = frozenset({*_PACKAGES, "numpy", "scipy", "builtins", "collections"})


def _home_of(made_by: Any) -> str:
    """Returns the module of the libraries where a class or function is found, "" for another's.

    Compiled modules of older versions give theirs a module's last name alone.
    """
    module, name = made_by.__module__ or "", made_by.__qualname__
    if module.partition(".")[0] in _KNOWN:
        return module
    for home, there in list(sys.modules.items()):
        is_theirs = home.endswith(f".{module}") and home.partition(".")[0] in _PACKAGES
        if is_theirs and getattr(there, name, None) is made_by:
            return home
    return ""


def _by_reduction(value: Any, path: tuple[str, ...], seen: _Seen) -> dict[str, Any]:
    """Takes an object of the libraries apart as copying it would."""
    if id(value) in seen:
        return {_OBJECT: "same", "number": seen[id(value)][0]}
    number = len(seen)
    seen[id(value)] = (number, value)
    kind = type(value)
    if _home_of(kind) in {"", "builtins"}:
        raise _unsavable(value, path)
    reduced = value.__reduce_ex__(2)
    make, given = reduced[0], reduced[1]
    if make is _NEW_OBJECT:
        kind, given, how = given[0], given[1:], "new"
    elif (home := _home_of(make)) and (home != "builtins" or isinstance(make, type)):
        kind, how = make, "call"
    else:
        raise _unsavable(value, path)
    state = reduced[2] if len(reduced) > 2 else None
    if any(reduced[3:]):
        raise _unsavable(value, path)
    return {
        _OBJECT: how,
        "number": number,
        "class": [_home_of(kind), kind.__qualname__],
        "args": _plain(tuple(given), path, seen),
        "state": _plain(state, (*path, kind.__qualname__), seen),
    }


def _object(value: Any, made: _Made) -> Any:
    """Returns what ``_plain`` was given; only classes of the libraries themselves are made."""
    if isinstance(value, list | tuple):
        return type(value)(_object(each, made) for each in value)
    if not isinstance(value, dict):
        return value
    return _MAKERS[value[_OBJECT]](value, made)


def _dict(value: Any, made: _Made) -> Any:
    pairs = ((key, _object(each, made)) for key, each in value["items"])
    if value.get("kind") == "defaultdict":
        return collections.defaultdict(_object(value["factory"], made), pairs)
    return collections.OrderedDict(pairs) if value.get("kind") else dict(pairs)


def _rows(value: Any, _: _Made) -> Any:
    return (
        np.frombuffer(value["data"].tobytes(), np.dtype(value["dtype"]))
        .reshape(value["shape"])
        .copy()
    )


def _array(value: Any, made: _Made) -> Any:
    items = np.empty(len(value["items"]), object)
    items[:] = [_object(each, made) for each in value["items"]]
    return items.reshape(value["shape"])


def _found(place: Any, *, calls: bool = False) -> Any:
    """Returns a class of the libraries, or what one of them makes its compiled objects by.

    A checkpoint may come from anywhere: it must not name what does more than make an object.
    """
    module, name = place
    package = module.partition(".")[0]
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    is_made_so = name.startswith("__pyx_unpickle_") and _is_compiled(module)
    is_made_so |= module == "numpy.random._pickle" and name.endswith("_ctor")
    is_class = isinstance(found, type) and (package == "sklearn" or not calls)
    if package not in _KNOWN or not (is_class or (calls and is_made_so)):
        message = f"A checkpoint names {module}.{name}, which is not there, or makes no estimator."
        hint = "Import what the estimator is of before the run is made."
        raise StateError(message, where=module, hint=hint)
    return found


def _is_compiled(module: str) -> bool:
    return module.partition(".")[0] == "sklearn" or module.startswith("numpy.random.")


def _new(value: Any, made: _Made) -> Any:
    is_new = value[_OBJECT] == "new"
    kind, given = _found(value["class"], calls=not is_new), _object(value["args"], made)
    each = kind.__new__(kind, *given) if is_new else kind(*given)
    made[value["number"]] = each
    state = _object(value["state"], made)
    if state is None:
        return each
    if hasattr(each, "__setstate__"):
        each.__setstate__(state)
    else:
        vars(each).update(state)
    return each


_MAKERS: dict[str, Callable[[Any, _Made], Any]] = {
    "array": _array,
    "booster": lambda value, _: restored(None, value),
    "call": _new,
    "class": lambda value, _: _found(value["class"]),
    "dict": _dict,
    "dtype": lambda value, _: np.dtype(value["name"]),
    "global stream": lambda _, __: _GLOBAL_STREAM,
    "new": _new,
    "rows": _rows,
    "same": lambda value, made: made[value["number"]],
}


def _unsavable(value: Any, path: tuple[str, ...]) -> StateError:
    where = ".".join(path)
    message = f"{where} is a {type(value).__name__}, which cannot be stored without pickle."
    hint = "Give the object that holds it state_dict and load_state_dict of its own."
    return StateError(message, where=where, hint=hint)
