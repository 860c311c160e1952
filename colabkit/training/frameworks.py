"""Which framework a user's objects come from, told without importing any framework."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from typing import Any

from colabkit.errors import ArgumentError


class Framework(enum.Enum):
    """The framework whose side a run is on."""

    KERAS = "keras"
    TORCH = "torch"


def framework_of(objects: Iterable[Any]) -> Framework:
    """Returns KERAS when one of the objects is a ``keras.Model``, else TORCH.

    A model of a framework that was never imported cannot exist, so what is loaded is enough.

    Raises:
        ArgumentError: One of them is a model of Keras 2.
    """
    values = list(objects)
    if any(_is_model(value, "tf_keras") for value in values):
        raise keras_2_error(of="tf_keras")
    if any(_is_model(value, "keras") for value in values):
        version = str(getattr(sys.modules["keras"], "__version__", ""))
        if version.startswith("2."):
            raise keras_2_error(of=version)
        return Framework.KERAS
    return Framework.TORCH


def _is_model(value: object, package: str) -> bool:
    model_class = getattr(sys.modules.get(package), "Model", None)
    return isinstance(model_class, type) and isinstance(value, model_class)


def keras_2_error(*, of: str) -> ArgumentError:
    """Returns the error for a model of Keras 2, which says how to make it one of Keras 3."""
    message = f"The model is of Keras 2 ({of}); colabkit trains models of Keras 3."
    hint = (
        "Build it with `import keras` instead of tf_keras, and without"
        " TF_USE_LEGACY_KERAS=1 in the environment."
    )
    return ArgumentError(message, argument="model", hint=hint)
