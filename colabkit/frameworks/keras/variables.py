"""Reading and writing a Keras variable on either backend, and who trains the model."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from colabkit.errors import ArgumentError
from colabkit.frameworks.users_own import attributes_of

BACKENDS = ("tensorflow", "torch", "jax")


def backend_name() -> str:
    """Returns "tensorflow", "torch" or "jax".

    Raises:
        ArgumentError: Keras runs on another backend.
    """
    name: str = keras.backend.backend()
    if name not in BACKENDS:
        message = f"Keras runs on the backend {name!r}, whose training cannot be resumed yet."
        hint = (
            'Set os.environ["KERAS_BACKEND"] = "tensorflow", "torch" or "jax" before importing'
            " keras."
        )
        raise ArgumentError(message, argument="model", hint=hint)
    return name


def reader() -> Callable[[Any], Any]:
    """Returns the function that gives a variable's value as a checkpoint takes it."""
    if backend_name() == "tensorflow":
        from colabkit.frameworks.keras.backend import hold  # imported where TensorFlow is

        return hold
    return _torch_value if backend_name() == "torch" else operator.attrgetter("value")


def _torch_value(variable: Any) -> Any:
    return variable.value.detach()


def sync(models: Iterable[Any]) -> None:
    """Gives variables their values back, which on JAX the step under way has taken from them."""
    for model in models:
        if (bring_back := getattr(model, "jax_state_sync", None)) is not None:
            bring_back()


def is_compiled(model: Any) -> bool:
    """Whether a model's step is compiled, with what is plain in it built in."""
    if backend_name() == "tensorflow":
        return not model.run_eagerly
    return backend_name() == "jax" and bool(model.jit_compile) and not model.run_eagerly


def assign(variable: Any, value: Any) -> None:
    """Gives a variable a value that a checkpoint held."""
    if backend_name() == "tensorflow":
        import tensorflow as tf  # imported where it is the backend

        # While a step is traced, a plain assignment would become a part of it.
        with tf.init_scope():
            variable.assign(value)
        return
    if backend_name() == "jax":
        variable.assign(value)
        return
    import torch  # imported where the backend is PyTorch

    # Straight into the memory: assign would convert through the default dtype.
    with torch.no_grad():
        variable.value.data.copy_(value)


def components(variable: Any) -> Sequence[Any]:
    """Returns a variable's copy in each replica, none where it has but one."""
    if backend_name() != "tensorflow":
        return ()
    inner = getattr(variable, "_value", variable)
    found: Sequence[Any] = getattr(inner, "values", ())
    return () if callable(found) or len(found) < 2 else found


def ids_of(variable: Any) -> set[int]:
    """Returns by what a variable is known: Keras' own wraps TensorFlow's, or PyTorch's.

    A step of several replicas knows its copies.
    """
    inner = None if backend_name() == "jax" else getattr(variable, "_value", None)
    known = {id(variable)} if inner is None else {id(variable), id(inner)}
    return known | set(map(id, components(variable)))


def is_value(variable: Any, value: Any) -> bool:
    """Whether a variable has, bit for bit, the value that a checkpoint held."""
    if value is None or tuple(variable.shape) != tuple(value.shape):
        return False
    now, then = (np.asarray(keras.ops.convert_to_numpy(each)) for each in (variable, value))
    return now.dtype == then.dtype and now.tobytes() == then.tobytes()


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor of one axis or more, and no variable."""
    is_one = isinstance(value, np.ndarray) or keras.ops.is_tensor(value)
    return is_one and not isinstance(value, variable_kinds()) and len(value.shape) > 0


def steps_of(optimizer: Any) -> int:
    """Returns how many steps an optimizer has taken; under a strategy ``int`` cannot tell."""
    counted = optimizer.iterations  # a lone tensor where one optimizer is around another
    return int(keras.ops.convert_to_numpy(getattr(counted, "value", counted)))


def form(variable: Any) -> str:
    """Returns dtype and shape in words."""
    return f"{keras.backend.standardize_dtype(variable.dtype)} {list(variable.shape)}"


def optimizers_of(
    owners: Iterable[Any], *, passed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns every optimizer that the models and layers keep, by the attribute's name.

    Args:
        owners: Models and layers, the compiled one first.
        passed: Optimizers that have names of their own.
    """
    found = {id(optimizer): (name, optimizer) for name, optimizer in (passed or {}).items()}
    for owner in owners:
        attributes = {"optimizer": getattr(owner, "optimizer", None), **attributes_of(owner)}
        for name, value in attributes.items():
            for path, candidate in _spread(name.strip("_"), value):
                if isinstance(candidate, keras.optimizers.Optimizer):
                    found.setdefault(id(candidate), (path, candidate))
    inner = {id(o.inner_optimizer) for _, o in found.values() if hasattr(o, "inner_optimizer")}
    return _named(found[key] for key in found if key not in inner)


def unlisted_variables(model: Any, owners: Iterable[Any]) -> list[Any]:
    """Returns the variables that layers and losses keep, and ``model.variables`` leaves out.

    They are the states of stateful recurrent layers, and what users make without
    ``add_weight``.

    Args:
        model: The model.
        owners: The model and its layers.
    """
    listed = {id(variable) for variable in [*model.variables, *model.metrics_variables]}
    found: dict[int, Any] = {}
    for owner in [*owners, *keras.tree.flatten(getattr(model, "loss", None))]:
        for value in attributes_of(owner).values():
            for _, candidate in _spread("", value):
                if isinstance(candidate, variable_kinds()) and id(candidate) not in listed:
                    found[id(candidate)] = candidate
    return list(found.values())


def variable_kinds() -> tuple[type, ...]:
    if backend_name() != "tensorflow":
        return (keras.Variable,)
    import tensorflow as tf  # imported where it is the backend

    return (keras.Variable, tf.Variable)


def _named(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for path, value in pairs:
        name, number = path, 1
        while name in named:
            number += 1
            name = f"{path} {number}"
        named[name] = value
    return named


def _spread(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"{name}.{key}", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{name}.{place}", item) for place, item in enumerate(value))
    else:
        yield name, value
