"""The random streams around a Keras run: one lock for the global ones, keys for the user's."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from colabkit.frameworks.generators import (
    generator_state,
    restore_generator,
)
from colabkit.frameworks.keras.variables import assign, backend_name
from colabkit.frameworks.own_generators import OwnGenerators

# Batches are fetched on other threads than callbacks run on, and both may draw.
STREAMS = threading.RLock()


def renew_lock() -> None:
    """Makes the lock anew in a process that was forked while another thread may have held it."""
    global STREAMS
    STREAMS = threading.RLock()


def generator_kinds() -> tuple[type, ...]:
    """Returns the backend's own generator classes."""
    if backend_name() == "tensorflow":
        import tensorflow as tf  # imported where it is the backend

        return (tf.random.Generator,)
    if backend_name() == "jax":
        return ()
    import torch  # imported where it is the backend

    return (torch.Generator,)


def global_seeds() -> list[Any]:
    """Returns the variable behind ``keras.random`` calls without a seed, if Keras shows it."""
    try:
        from keras.src.random.seed_generator import global_seed_generator  # not exported
    except ImportError:
        return []
    return [global_seed_generator().state]


def seed_global(seed: int) -> None:
    """Puts the variable behind ``keras.random`` calls without a seed where a seed names."""
    for state in global_seeds():
        named = np.array([seed & 0x7FFFFFFF, 0], state.dtype)
        assign(state, keras.ops.convert_to_tensor(named, dtype=state.dtype))


def state_of(generator: Any) -> object:
    """Returns the state of a user's generator as plain values and arrays."""
    if not isinstance(generator, generator_kinds()):
        return generator_state(generator)
    own: Any = generator
    return own.state.numpy() if backend_name() == "tensorflow" else own.get_state().numpy()


def restore_state(generator: Any, state: Any) -> None:
    """Restores what ``state_of`` gave."""
    own: Any = generator
    if not isinstance(generator, generator_kinds()):
        restore_generator(generator, state)
    elif backend_name() == "tensorflow":
        own.state.assign(state)
    else:
        import torch  # imported where it is the backend

        own.set_state(torch.from_numpy(state))


class GeneratorState:
    """A user's generator as an object whose state a checkpoint holds."""

    def __init__(self, generator: object) -> None:
        self._generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Returns its state."""
        return {"state": state_of(self._generator)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores its state."""
        restore_state(self._generator, state["state"])


def seed_streams(seed: int) -> None:
    """Puts the global streams of Python, NumPy and the backend at a seed."""
    with STREAMS:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # users draw from the global stream
        if backend_name() == "torch":
            from colabkit.frameworks.torch import seed_everything  # imported on use

            seed_everything(seed)
        elif backend_name() == "tensorflow":
            _seed_eager_draws(seed & 0x7FFFFFFF)


def forget_draws() -> None:
    """Forgets the places of TensorFlow's eager draws, which it keeps for each seed."""
    if backend_name() == "tensorflow":
        import tensorflow as tf  # imported where it is the backend

        tf.random.set_seed(0)


def _seed_eager_draws(seed: int) -> None:
    """Does what ``tf.random.set_seed`` does, which takes milliseconds to forget all kernels."""
    from tensorflow.python.eager import context  # public nowhere

    eager = context.context()
    eager._seed = seed
    eager._rng = _rng
    _rng.seed(seed)


_rng = random.Random()  # noqa: S311  # gives seeds to operations, guards nothing


@contextlib.contextmanager
def streams_at(seed: int) -> Iterator[None]:
    """Has the global streams at a seed for a while, and puts them back where they were."""
    with STREAMS:
        python, numpy = random.getstate(), np.random.get_state(legacy=False)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # users draw from the global stream
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class KeyedDraws:
    """Makes whatever an object draws depend on a key alone.

    Args:
        root: A dataset, or a function; its own generators are keyed too.
    """

    def __init__(self, root: object) -> None:
        self._own = OwnGenerators(root)
        self.have_come = self._own.have_come

    @contextlib.contextmanager
    def at(self, seed: int) -> Iterator[None]:
        """Keys every stream within the block."""
        with streams_at(seed):
            self._own.reseed(seed)
            yield

    def reasons(self) -> tuple[str, ...]:
        """Returns which of them cannot be keyed."""
        if self._own.unseedable():
            return ("the data draws from random.SystemRandom, which nothing can repeat",)
        return ()
