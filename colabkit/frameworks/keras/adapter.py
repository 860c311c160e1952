"""Keras behind the loop's one protocol."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from colabkit.checkpoint import Section, TensorBackend, TensorSpec
from colabkit.frameworks.base import Feed, Owned
from colabkit.frameworks.batch_watches import SampledWatch, Watch
from colabkit.frameworks.begun_anew import begun_anew, changes, is_row_of
from colabkit.frameworks.keras.compare import record
from colabkit.frameworks.keras.evaluating import Moment, Moments
from colabkit.frameworks.keras.loop_inspect import LoopInspector, variables_of
from colabkit.frameworks.keras.passed_settings import PassedSettings, parts_of, told_of
from colabkit.frameworks.keras.randomness import forget_draws, seed_streams
from colabkit.frameworks.keras.replicas import replicas_of
from colabkit.frameworks.keras.sources import FeedOptions, feed_of
from colabkit.frameworks.keras.state import KerasState
from colabkit.frameworks.keras.variables import backend_name, ids_of, is_array, sync
from colabkit.frameworks.second_names import Arrays, SecondNames
from colabkit.frameworks.small_copies import few_weights
from colabkit.storage import Bytes

_ANY_ORDER = (
    "GPU kernels may add in any order"
    " (tf.config.experimental.enable_op_determinism() makes them exact)"
)
_CARRIED = (
    "the loop's {0} begins anew at a resume: keep it as an array"
    " (kept = run.state({0}={0}), then kept.{0})"
)


class KerasAdapter:
    """What the loop needs of a framework, for Keras on TensorFlow, PyTorch or JAX."""

    def __init__(
        self,
        objects: Mapping[str, Any],
        *,
        save_base: bool = False,  # noqa: ARG002  # all weights are written
    ) -> None:
        self._on_tensorflow = backend_name() == "tensorflow"
        self._on_jax = backend_name() == "jax"
        self.state = KerasState(objects)
        self.backend: TensorBackend = _tensors(self.state)
        self._passed = self._settings()
        self._inspector = LoopInspector(self.state)
        # Until the first step of a loop: what was restored, the settings then, and those of the
        # checkpoint that changes were taken from.
        self._again: Mapping[str, Any] | None = None
        self._rates: Mapping[str, float] | None = None
        self._taken_from: Mapping[str, Any] | None = None
        # What may be held of passes that are over.
        self._moments = Moments()

    def open(self, before_optimizer_step: Callable[[], None]) -> None:  # noqa: ARG002  # guarded
        """Puts the streams of TensorFlow's eager draws where none has drawn before."""
        forget_draws()

    def close(self) -> None:
        """Nothing to stop."""

    def begin_step(self) -> None:
        """Looks at what the first step uses."""
        self.forget_restored()
        self._moments.begin_step()
        if not self._inspector.is_over:
            self._inspector.begin_step()

    def has_stepped(self) -> bool:
        """Nobody can tell."""
        return True

    def is_mid_group(self) -> bool:
        """Returns False: Keras' optimizers keep their count of gathered gradients themselves."""
        return False

    def evaluation_mark(self, *, at_end: bool = False) -> object | None:  # noqa: ARG002
        """Returns what is equal while no optimizer steps; None where nobody trains."""
        self.sync()
        moment = Moment.of(self.state, self.backend.is_tensor)
        if moment is not None:
            self._moments.add(moment)
        return moment

    def weights_mark(self) -> object | None:
        """Returns None: a place behind a pass holds them, or nobody can tell."""

    def sections(self) -> list[Section]:
        """Returns all that a checkpoint holds of the user's objects."""
        self.sync()
        self._inspector.finish()
        return self.state.sections()

    def sync(self) -> None:
        """Has the variables hold their values, for whoever reads them between two steps."""
        if self._on_jax:
            sync(self.state.models.values())

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts a checkpoint back into the user's objects."""
        self._again, self._taken_from = sections, None
        self.state.restore(sections)
        self._rates = self._passed.rates()

    def restore_again(self, *, all_of_it: bool = False) -> None:
        """Puts back what a loop has reset on its way to the place where it goes on.

        Args:
            all_of_it: Whether to put weights, rates and moments back as well: what the head of an
                epoch does to them, and what stands between two loops, they have in them already.
        """
        sections, taken_from = self._again, self._taken_from
        if not (all_of_it and sections is not None):
            self.state.restore_again()
            return
        self.forget_restored()
        self.state.restore(sections)
        if taken_from is not None:
            self._passed.take(taken_from)

    def forget_restored(self) -> None:
        """Lets a checkpoint's values go, which nobody will put back once more."""
        self._again = self._taken_from = None

    def small_state(self, *, with_weights: bool = False) -> dict[str, Any]:
        """Returns nothing of the objects but their weights."""
        if not with_weights:
            return {}
        taken = (each for each in self.sections() if each.weights)
        weights = {e.name: {k: _unheld(v) for k, v in e.state.items()} for e in taken}
        arrays = (each for own in weights.values() for each in own.values())
        # NumPy knows no bfloat16.
        if any(isinstance(each, np.ndarray) and each.dtype.kind == "V" for each in arrays):
            return {}
        return {"weights": few_weights(weights, self.backend.is_tensor)}

    def put_small(self, state: Mapping[str, Any]) -> None:
        """Puts the weights of the head of an epoch back, until all is put back."""
        if self._again is not None and (weights := state.get("weights")):
            self.state.restore_weights(weights)

    def begin_epoch(self) -> tuple[str, ...]:
        """Returns which rates were set behind a restore, and will come back."""
        restored, self._rates = self._rates or {}, None
        return tuple(
            f"learning_rate of {name} {rate} → {restored[name]}"
            for name, rate in self._passed.rates().items()
            # One that is yet to be built takes its rate with the rest of its state when it is.
            if restored.get(name, rate) != rate and not self.state.awaits_build(name)
        )

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Takes what fits; returns how many tensors did, of how many."""
        return self.state.restore_weights(sections)

    def guard(self) -> Callable[[TensorSpec], bool]:
        """Held values never change, so all may be copied later; PyTorch's tensors may not."""
        held = self._on_tensorflow or self._on_jax
        return lambda _: held

    def unchanged(self) -> Callable[[Mapping[int, Bytes]], bool]:
        """Held values never change."""
        return lambda _: True

    def feed(self, data: Any, *, batch_size: int = 32, shuffle: bool = True) -> Feed:
        """Returns the source of batches for whatever the user passed."""
        options = FeedOptions(batch_size=batch_size, shuffle=shuffle, seed=0, of_loop=True)
        feed = feed_of(data, options)
        if (go_on := getattr(feed, "go_on_in_session", None)) is not None:
            go_on()
        return feed

    def watch(self, *, first: int = 0) -> Watch:
        """Returns what takes down some of the batches of one pass."""
        return SampledWatch(record, first=first)

    def seed(self, seed: int) -> None:
        """Puts every global random stream where a seed names."""
        seed_streams(seed)

    def to_floats(self, values: Sequence[Any]) -> list[float]:
        """Reads scalars."""
        if self._on_jax:
            from colabkit.frameworks.jax import floats_of  # imported where it is

            return floats_of(values)
        return [value if isinstance(value, float) else _as_float(value) for value in values]

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        return self.state.fingerprint()

    def parts(self) -> dict[str, str]:
        """Returns what is trained, by whom, in phrases."""
        return parts_of(self.state.models, self.state.optimizers)

    def owned(self) -> Owned:
        """Returns the objects that tell one call from another by which they are."""
        return Owned(tuple(self.state.models.values()), tuple(self.state.optimizers.values()))

    def unwritten_bytes(self) -> int:
        """Returns 0: all weights are written."""
        return 0

    def changed_base(self, _sections: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
        """Returns nothing: all weights are written."""
        return {}

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        """Whether the models hold the weights of a checkpoint, bit for bit."""
        return self.state.holds_weights(sections)

    def passed(self) -> dict[str, Any]:
        """Returns the settings of optimizers and losses as the user compiled them."""
        return self._passed.values

    def left(self) -> dict[str, Any]:
        """Returns these settings as they are now."""
        return self._settings().values

    def take_changes(self, then: Mapping[str, Any]) -> tuple[str, ...]:
        """Takes what is passed otherwise than ``then`` into the restored optimizers; says it."""
        self._taken_from = then
        taken = self._passed.take(then)
        self._rates = self._passed.rates()
        return taken

    def _settings(self) -> PassedSettings:
        return PassedSettings(self.state.models, self.state.optimizers)

    def told(self) -> dict[str, Any]:
        """Returns the metrics of the models, and marks of the user's own code in them."""
        return told_of(self.state.models)

    def environment(self) -> dict[str, Any]:
        """Returns what must be the same for the same bits."""
        return {
            **self._of_the_backend(),
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": ".".join(platform.python_version_tuple()[:2]),
        }

    def _of_the_backend(self) -> dict[str, Any]:
        if self._on_jax:
            from colabkit.frameworks.jax import jax_environment  # imported where it is

            return jax_environment()
        if not self._on_tensorflow:
            return _torch_environment(self.state)
        return {**_tensorflow_environment(), "replicas": replicas_of(self.state.models.values())}

    def reasons(self) -> tuple[str, ...]:
        """Returns what of the framework's settings stands against exactness."""
        if self._on_jax:
            from colabkit.frameworks.jax import nondeterminism  # imported where it is

            return nondeterminism()
        if not self._on_tensorflow:
            return ()
        import tensorflow as tf  # imported where it is the backend

        if tf.config.list_logical_devices("GPU") and not _is_deterministic():
            return (_ANY_ORDER,)
        return ()

    def carried(
        self, variables: Mapping[str, Any], decisive: Mapping[str, Any], taken: Collection[str]
    ) -> tuple[str, ...]:
        """Returns which variables are arrays, or what steps go by, in words."""
        arrays = [name for name, value in variables.items() if is_array(value)]
        held = self.state.held_ids()
        apart = {n: decisive[n] for n in self.trained_apart(decisive) if n not in arrays}
        parts = {n: {i for v in variables_of(e) for i in ids_of(v)} for n, e in apart.items()}
        left_out = [name for name in apart if not parts[name] <= held]
        others = begun_anew((name for name in apart if not parts[name]), apart, taken=taken)
        carried = (_CARRIED.format(name) for name in arrays)
        return (*carried, *map(changes, left_out), *others)

    def watch_beside(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:  # noqa: ARG002
        """Takes down optimizers and variables that the run has not."""
        self._inspector.watch(reached)

    def trained_apart(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of those that are no weights of the run's models."""
        own = {id(each) for model in self.state.models.values() for each in model.weights}
        return tuple(name for name, each in values.items() if not is_row_of(each, own))

    def second_names(self) -> SecondNames:
        """Returns what keeps second names; arrays of a library's own are never changed."""
        return SecondNames(dict, Arrays())

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to use or change that no object of the run holds."""
        watching = [each for each in self.state.others.values() if hasattr(each, "unsaved")]
        seen = (reason for each in watching for reason in each.unsaved())
        return (*self.state.left_out, *self._inspector.reasons(), *seen)


def _unheld(value: Any) -> Any:
    """Returns the array of a value of TensorFlow's that a save would let go, or any other value."""
    return np.array(value.tensor) if hasattr(value, "tensor") else value


def _as_float(value: Any) -> float:
    if hasattr(value, "numpy") and not hasattr(value, "detach"):
        return float(value.numpy())
    return float(value)


def _tensors(state: KerasState) -> TensorBackend:
    if backend_name() == "tensorflow":
        from colabkit.frameworks.keras.backend import KerasBackend  # imported where it is

        return KerasBackend()
    if backend_name() == "jax":
        from colabkit.frameworks.jax import JaxBackend  # imported where it is

        return JaxBackend()
    from colabkit.frameworks.torch import TorchBackend  # imported where it is

    return TorchBackend(_torch_device(state))


def _torch_device(state: KerasState) -> Any:
    import torch  # imported where it is the backend

    for model in state.models.values():
        for variable in model.weights:
            return variable.value.device
    return torch.device("cpu")


def _is_deterministic() -> bool:
    """Whether deterministic kernels are asked for; TensorFlow tells only inside itself."""
    try:
        from tensorflow.python.framework.config import is_op_determinism_enabled
    except ImportError:
        return os.environ.get("TF_DETERMINISTIC_OPS", "") in {"1", "true"}
    return bool(is_op_determinism_enabled())


def _tensorflow_environment() -> dict[str, Any]:
    import tensorflow as tf  # imported where it is the backend

    gpus = tf.config.list_logical_devices("GPU")
    device = "cpu"
    if gpus:
        physical = tf.config.list_physical_devices("GPU")[0]
        details = tf.config.experimental.get_device_details(physical)
        device = str(details.get("device_name", "GPU"))
    return {
        "device": device,
        "CPU_threads": _threads(tf.config.threading.get_intra_op_parallelism_threads()),
        "tensorflow": tf.__version__,
    }


def _torch_environment(state: KerasState) -> dict[str, Any]:
    import torch  # imported where it is the backend

    device = _torch_device(state)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "CPU_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _threads(asked: int) -> int:
    # 0 lets TensorFlow take as many as this process may use.
    return asked or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else asked
