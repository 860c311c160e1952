"""Which framework a user's objects come from, told without importing any framework."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError


class Framework(enum.Enum):
    """The framework whose side a run is on."""

    KERAS = "keras"
    TORCH = "torch"


def framework_of(objects: Iterable[Any]) -> Framework:
    """Returns KERAS when one of the objects is of Keras or TensorFlow, else TORCH.

    An object of a framework that was never imported cannot exist, so what is loaded is enough.

    Raises:
        ArgumentError: One of them is of Keras 2.
    """
    values = [part for value in objects for part in _spread(value)]
    if any(_is_of(value, ("tf_keras",)) for value in values):
        raise keras_2_error(of="tf_keras")
    if any(map(is_of_keras, values)):
        version = str(getattr(sys.modules.get("keras"), "__version__", ""))
        if version.startswith("2."):
            raise keras_2_error(of=version)
        return Framework.KERAS
    return Framework.TORCH


def is_of_keras(value: object) -> bool:
    """Whether an object's class, or one it comes from, is of Keras or TensorFlow."""
    return _is_of(value, ("keras", "tensorflow"))


def _is_of(value: object, packages: tuple[str, ...]) -> bool:
    if not any(package in sys.modules for package in packages):
        return False
    return any(base.__module__.partition(".")[0] in packages for base in type(value).__mro__)


def _spread(value: object) -> Iterator[object]:
    """Yields what a list or dict of objects holds, and any other object itself."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    else:
        yield value


def keras_2_error(*, of: str) -> ArgumentError:
    """Returns the error for a model of Keras 2, which says how to make it one of Keras 3."""
    message = f"The model is of Keras 2 ({of}); colabkit trains models of Keras 3."
    hint = (
        "Build it with `import keras` instead of tf_keras, and without"
        " TF_USE_LEGACY_KERAS=1 in the environment."
    )
    return ArgumentError(message, argument="model", hint=hint)
