"""Makes every variable of a Keras run exist before the first step, so that all can be restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from colabkit.errors import ArgumentError
from colabkit.frameworks.keras.names import layers_of
from colabkit.frameworks.keras.replicas import strategy_of
from colabkit.frameworks.keras.sparse import is_sparse
from colabkit.frameworks.keras.structure import Parts, tupled
from colabkit.frameworks.keras.thread_streams import global_states
from colabkit.frameworks.keras.variables import backend_name, optimizers_of


def check_is_compiled(model: Any) -> None:
    """Raises ArgumentError unless the model was compiled."""
    if not model.compiled:
        message = "The model is not compiled: it has no loss and no optimizer."
        hint = 'Call model.compile(optimizer="adam", loss=...) first.'
        raise ArgumentError(message, argument="model", hint=hint)
    if not isinstance(model.steps_per_execution, int):
        message = f"steps_per_execution is {model.steps_per_execution!r}."
        hint = "Give model.compile a whole number of steps: Keras 3 chooses none by itself."
        raise ArgumentError(message, argument="model", hint=hint)


def build(model: Any, batch: Any) -> Any:
    """Builds the model, its optimizers and metrics, without a step.

    Args:
        model: The compiled model.
        batch: A batch, or the specs of one.

    Returns:
        The graph of a step, where it was traced for that and drew nothing meanwhile.
    """
    _check_shapes(batch)
    if backend_name() == "tensorflow" and not _is_plain(model):
        return _trace(model, batch)
    if model.built or has_call(model):
        model._symbolic_build(data_batch=_symbols(model, batch))  # what Keras itself calls
    return None


def is_looked_at(model: Any) -> bool:
    """Whether Keras' own ``fit`` would read a batch of the data first, to build the model."""
    if backend_name() == "tensorflow":
        return False
    compiled = (getattr(model, name, None) for name in ("_compile_metrics", "_compile_loss"))
    return not all(part.built for part in (*model._flatten_layers(), *compiled) if part is not None)


def _check_shapes(batch: Any) -> None:
    for leaf in keras.tree.flatten(batch):
        if getattr(getattr(leaf, "shape", None), "rank", 0) is None:
            message = "The tf.data pipeline does not say what shape its arrays have."
            hint = "Say it behind numpy_function and py_function: tf.ensure_shape(x, [28, 28])."
            raise ArgumentError(message, argument="data", hint=hint)


def _is_plain(model: Any) -> bool:
    """Whether the step is Keras' own, and the model and every layer too."""
    own_step = type(model).train_step is not keras.Model.train_step
    known = all(type(layer).__module__.startswith("keras.") for layer in layers_of(model))
    return not own_step and known and hasattr(model, "_symbolic_build")


def has_call(model: Any) -> bool:
    """Whether a model can be called, and not only trained by a step of its own."""
    return type(model).call is not keras.Model.call


def _symbols(model: Any, batch: Any) -> Any:
    # A stateful layer has a state for each sample of a batch, whose size counts then; and the
    # user's own code may look at it.
    sized = not _is_plain(model) or any(
        getattr(layer, "stateful", False) for layer in layers_of(model)
    )
    return keras.tree.map_structure(lambda leaf: _symbol(leaf, sized=sized), tupled(batch))


def _symbol(leaf: Any, *, sized: bool) -> Any:
    if leaf is None:
        return None
    shape = tuple(leaf.shape) if sized else (None, *tuple(leaf.shape)[1:])
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    kind = type(leaf).__name__
    if kind == "SparseTensorSpec" or is_sparse(leaf):
        return keras.KerasTensor(shape, dtype, sparse=True)
    if kind == "RaggedTensorSpec":
        return keras.KerasTensor(shape, dtype, ragged=True)
    return keras.KerasTensor(shape, dtype)


def _trace(model: Any, batch: Any) -> Any:
    """Traces one step without running it; all it makes is made then."""
    if strategy_of(model) is not None:
        _build_for_replicas(model, batch)
    graph, before = None, global_states()
    if not model.run_eagerly:
        with _naming_what_is_unbuilt(model):
            graph = traced(model, batch)
    elif has_call(model) and not (model.built and model.weights):
        model(Parts.of(_symbols(model, batch)).x)
    for optimizer in optimizers_of(layers_of(model)).values():
        if not optimizer.built and optimizer is model.optimizer:
            optimizer.build(model.trainable_variables)
    return graph if global_states() == before else None


def _build_for_replicas(model: Any, batch: Any) -> None:
    """Builds it as Keras' own fit does: a step of several replicas cannot make what it trains."""
    if not (model.built or has_call(model)):
        message = "The model is of several replicas and has no call(), which Keras builds it by."
        hint = (
            "Give it a call() that takes a batch; or build its parts, and set self.built = True in"
            " its __init__."
        )
        raise ArgumentError(message, argument="model", hint=hint)
    model._symbolic_build(data_batch=_symbols(model, batch))


@contextlib.contextmanager
def _naming_what_is_unbuilt(model: Any) -> Iterator[None]:
    kinds = keras.layers.Layer, keras.optimizers.Optimizer
    parts = vars(model).items()
    unbuilt = [n for n, each in parts if isinstance(each, kinds) and not each.built]
    try:
        yield
    except Exception as error:
        # Public nowhere: what a step raises that makes a variable for several replicas.
        if type(error).__name__ != "UnliftableError" or not unbuilt:
            raise
        names = ", ".join(name.strip("_") for name in unbuilt)
        message = f"The model is of several replicas, and its step would have to build {names}."
        hint = (
            "Build them in strategy.scope() before: a layer by a call on a batch, an optimizer by"
            " optimizer.build(the variables that it trains)."
        )
        raise ArgumentError(message, argument="model", hint=hint) from error


def traced(model: Any, batch: Any) -> Any:
    """Returns the graph of a model's step on batches of any size."""
    import tensorflow as tf  # imported where it is the backend

    # Without a strategy it is the step itself.
    run = model.distribute_strategy.run
    step = tf.function(lambda batch: run(model.train_step, args=(batch,)), autograph=False)
    specs = keras.tree.map_structure(_tensor_spec, batch)
    return step.get_concrete_function(specs).graph


def _tensor_spec(leaf: Any) -> Any:
    import tensorflow as tf  # imported where it is the backend

    if leaf is None or isinstance(leaf, tf.TypeSpec):
        return leaf
    return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)
