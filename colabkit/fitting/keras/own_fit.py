"""Models with a ``fit`` of their own, which makes of the data what Keras' ``fit`` then takes.

KerasHub's tasks are such: they tokenize text and cut images to size. What their ``fit`` hands
on to Keras' is asked of it once; the training then reads that, and keeps its place in it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

import keras

from colabkit.errors import ArgumentError

_DATA = ("x", "y", "sample_weight")
_KEPT = (
    "class_weight",
    "epochs",
    "shuffle",
    "steps_per_epoch",
    "validation_batch_size",
    "validation_data",
    "validation_freq",
    "validation_split",
    "validation_steps",
)


class _HandedOn(BaseException):  # leaves a fit that catches errors, too
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def has_own_fit(model: Any) -> bool:
    """Whether a model's class has a ``fit`` of its own."""
    return type(model).fit is not keras.Model.fit


def through_own_fit(model: Any, data: Any, options: Any) -> tuple[Any, Any]:
    """Returns data and options as the model's own ``fit`` hands them on.

    Args:
        model: The model.
        data: The user's data, or a function that makes it for each epoch.
        options: The arguments of fit, a dataclass.

    Raises:
        ArgumentError: The model's ``fit`` does not call Keras'.
    """
    makes = callable(data) and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__")
    handed_on = _handed_on(model, _asked(data() if makes else data, options))
    kept: dict[str, Any] = {name: handed_on[name] for name in _KEPT if name in handed_on}
    kept["validation_split"] = kept.get("validation_split") or 0.0
    if handed_on.get("batch_size") is not None:
        kept["batch_size"] = handed_on["batch_size"]
    callbacks = [*options.callbacks, *(handed_on.get("callbacks") or ())]
    options = dataclasses.replace(options, **{**kept, "sample_weight": None}, callbacks=callbacks)
    if makes:
        return lambda: _handed_on(model, _asked(data(), options))["x"], options
    x, y, sample_weight = (handed_on.get(name) for name in _DATA)
    return (x if y is None and sample_weight is None else (x, y, sample_weight)), options


def _asked(data: Any, options: Any) -> dict[str, Any]:
    """Returns the arguments a user would call ``model.fit`` with."""
    parts = data if isinstance(data, tuple) else (data,)
    asked = dict(zip(_DATA, parts, strict=False))
    is_read_in_batches = any(
        hasattr(data, name) for name in ("element_spec", "num_batches", "__next__", "dataset")
    )
    if not is_read_in_batches:
        asked["batch_size"] = options.batch_size
    fields = {field.name: field.default for field in dataclasses.fields(options)}
    for name in (*_KEPT, "sample_weight"):
        value = getattr(options, name)
        if value is not None and (name == "epochs" or value is not fields[name]):
            asked[name] = value
    return asked


def _handed_on(model: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    if not _calls_fit(type(model), "fit", set()):
        raise _no_call_error(model)
    own = keras.Model.__dict__.get("fit")
    signature = inspect.signature(keras.Model.fit)

    def hand_on(*args: Any, **named: Any) -> None:
        raise _HandedOn(signature.bind(*args, **named).arguments)

    keras.Model.fit = hand_on
    try:
        model.fit(**asked)
    except _HandedOn as found:
        return dict(found.arguments)
    except (TypeError, ValueError) as error:
        message = f"{type(model).__name__}.fit does not take this data ({type(error).__name__})."
        hint = "Pass it as model.fit would take it: arrays, or a tf.data.Dataset of batches."
        raise ArgumentError(message, argument="data", hint=hint) from error
    finally:
        if own is None:
            del keras.Model.fit
        else:
            keras.Model.fit = own
    raise _no_call_error(model)


def _calls_fit(model_class: type, method: str, seen: set[str]) -> bool:
    """Whether a method calls a ``fit``, by itself or through other methods of its class."""
    seen.add(method)
    code = getattr(inspect.unwrap(getattr(model_class, method)), "__code__", None)
    if code is None:
        return True  # no Python that could be read
    names = set(_names_in(code))
    if "fit" in names:
        return True
    found = {name: getattr(model_class, name, None) for name in names - seen}
    own = [n for n, f in found.items() if inspect.isfunction(f) and not _is_of_keras(f)]
    return any(_calls_fit(model_class, name, seen) for name in own)


def _is_of_keras(function: Any) -> bool:
    return str(function.__module__).startswith("keras.")


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _no_call_error(model: Any) -> ArgumentError:
    message = f"{type(model).__name__}.fit trains by itself: it does not call Keras' fit."
    hint = "Write its loop with colabkit.Run, or let it call super().fit(...)."
    return ArgumentError(message, argument="model", hint=hint)
