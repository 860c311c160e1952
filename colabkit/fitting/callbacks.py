"""Callbacks: the field's hook names, plain functions, and early stopping."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from colabkit.errors import ArgumentError
from colabkit.fitting.hook_names import HOOKS, meant_by
from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.generators import find_generators
from colabkit.frameworks.numbered import numbered
from colabkit.frameworks.plain_values import PlainValues
from colabkit.frameworks.users_own import (
    attributes_of,
    carries_attributes,
    package_of,
    set_attribute,
)
from colabkit.other_names import OtherNames, answering, by_name
from colabkit.runs.monitor import better_mode, is_better

if TYPE_CHECKING:
    from colabkit.runs.run import Run

# What EarlyStopping's arguments are called elsewhere, and what it leaves to others.
_OF_EARLY_STOPPING = OtherNames(
    by_name(
        {
            "min_delta": "delta early_stopping_threshold threshold tol",
            "monitor": "metric metric_for_best_model",
            "patience": "early_stopping_patience n_iter_no_change",
        }
    ),
    by_name(
        {
            "Call colabkit.load(model, ckpt_dir, 'best') afterwards.": (
                "load_best_model_at_end restore_best_weights"
            ),
            "Leave it out: the run says why it ended.": "quiet verbose",
            "Leave it out: a larger patience waits longer.": (
                "cooldown min_epochs start_from_epoch warmup"
            ),
            "Let a callback end it where the value is reached: event.run.stop().": (
                "baseline divergence_threshold stopping_threshold"
            ),
            "Leave it out: a loss that is not finite ends the run.": "check_finite strict",
        }
    ),
)

# What else the field calls a hook.
_ALSO = {"on_batch_end": ("on_train_batch_end", "on_step_end")}
# By the top of their module: libraries whose callbacks are called with what only they have.
_LIBRARIES = {
    "fastai": "fastai",
    "keras": "Keras",
    "lightning": "Lightning",
    "pytorch_lightning": "Lightning",
    "transformers": "Transformers",
}
_NONE = object()
_NAMES = (*HOOKS, *_ALSO["on_batch_end"])


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingEvent:
    """What a callback that is a plain function is called with.

    Attributes:
        name: The hook: "train_begin", "epoch_begin", "batch_end", "epoch_end", "train_end".
        run: The run; ``run.stop()`` ends it after the epoch under way.
        epoch: Epochs done before this one.
        step: Batches done, this one included.
        logs: The values of the batch (scalar tensors) or of the epoch (floats).
    """

    name: str
    run: Run
    epoch: int
    step: int
    logs: Mapping[str, Any]


class Callback:
    """Base for callbacks; override the hooks you need.

    Besides those here, ``on_batch_end(self, run, step, logs)`` is called after each batch, also
    under the names ``on_train_batch_end`` and ``on_step_end``; ``step`` counts it already. And
    ``on_validation_end(self, run, epoch, logs)`` is called with the values of a validation.

    State that must survive a disconnect goes through ``state_dict`` and
    ``load_state_dict``; without them, plain attributes that change do. Any object with some
    of these methods works as well.

    Example:
        >>> class Say(Callback):
        ...     def on_epoch_end(self, run, epoch, logs):
        ...         print(epoch, logs["loss"])
    """

    def on_train_begin(self, run: Run) -> None:
        """Called before the first step of this session."""

    def on_epoch_begin(self, run: Run, epoch: int) -> None:
        """Called before the first batch of an epoch; not again when resumed in mid-epoch."""

    def on_epoch_end(self, run: Run, epoch: int, logs: Mapping[str, Any]) -> None:
        """Called after validation with the epoch's values."""

    def on_train_end(self, run: Run) -> None:
        """Called after the last epoch."""


class EarlyStopping(Callback):
    """Ends a run when a value has not improved for some epochs.

    Args:
        monitor: Name of the value, "val_loss" for example.
        patience: Epochs without improvement before the run ends.
        min_delta: What counts as an improvement, in the value's own unit.
        mode: "min", "max", or "auto" by the name.

    Raises:
        ArgumentError: ``patience`` or ``mode`` cannot be used.

    Example:
        >>> EarlyStopping("val_accuracy", patience=5).mode
        'max'
    """

    @answering(_OF_EARLY_STOPPING)
    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "auto",
    ) -> None:
        if mode not in {"auto", "min", "max"}:
            raise ArgumentError.of("mode", mode, 'Pass "min", "max" or "auto".')
        if not isinstance(patience, int) or patience < 0:
            raise ArgumentError.of("patience", patience, "Pass 0 or more epochs.")
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.mode = better_mode(monitor) if mode == "auto" else mode
        self.best: float | None = None
        self.epochs_without_improvement = 0
        self.has_stopped = False

    def reconsider(self, run: Run) -> None:
        """Takes back an end of an earlier session that would not come with today's patience."""
        if self.has_stopped and self.epochs_without_improvement < max(1, self.patience):
            self.has_stopped = False
            watches_another = self.best is None
            patience = f"patience is {self.patience} epochs now"
            run.go_on(f"{self.monitor} is watched now" if watches_another else patience)

    def begin_phase(self) -> None:
        """Forgets what it has seen: another phase has a best value of its own."""
        self.best, self.epochs_without_improvement, self.has_stopped = None, 0, False

    def on_epoch_end(self, run: Run, epoch: int, logs: Mapping[str, Any]) -> None:
        """Counts the epochs since the best one."""
        del epoch
        if self.monitor not in logs and run.skips_validation:
            return
        if self.monitor not in logs:
            known = ", ".join(sorted(logs))
            message = f"EarlyStopping watches {self.monitor!r}, but an epoch reports {known}."
            raise ArgumentError(message, argument="monitor", hint="Pass one of these names.")
        value = float(logs[self.monitor])
        if is_better(value, self.best, mode=self.mode, min_delta=self.min_delta):
            self.best, self.epochs_without_improvement = value, 0
            return
        self.epochs_without_improvement += 1
        if self.epochs_without_improvement >= max(1, self.patience):
            self.has_stopped = True
            run.stop(
                f"{self.monitor} has not improved for {self.epochs_without_improvement} epochs"
            )
            run.note_stopped_by(type(self).__name__)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and the count."""
        return {
            "best": self.best,
            "waited": self.epochs_without_improvement,
            "has_stopped": self.has_stopped,
            "watches": [self.monitor, self.mode],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the best value and the count; of another value they say nothing."""
        self.has_stopped = state.get("has_stopped", False)
        own = [self.monitor, self.mode]
        is_same = state.get("watches", own) == own
        self.best = state["best"] if is_same else None
        self.epochs_without_improvement = state["waited"] if is_same else 0


class CallbackList:
    """Calls every callback's hooks, in the order given.

    Args:
        callbacks: Objects with hooks, and functions.
        values: Which of their attributes a checkpoint can hold; those without tensors by default.
    """

    def __init__(self, callbacks: Sequence[Any], values: PlainValues | None = None) -> None:
        self.members = tuple(callbacks)
        for callback in self.members:
            _check(callback)
        self._hooks = {
            hook: [found for c in self.members if (found := _hook_of(c, hook))] for hook in HOOKS
        }
        self.functions = [c for c in self.members if not any(hasattr(c, h) for h in _NAMES)]
        plain = values or PlainValues()
        self._memories = {
            f"attributes of {name}": Attributes(callback, plain)
            for name, callback in numbered(self.members).items()
            if carries_attributes(callback)
            and not _is_stateful(callback)
            and not inspect.isroutine(callback)
        }
        self.watches_batches = bool(self._hooks["on_batch_end"] or self.functions)
        self._began: list[tuple[float, float]] = []

    def require_validation(self, names: Collection[str]) -> None:
        """Raises ArgumentError where one stops by a validation that there is not.

        Args:
            names: What an epoch of training reports. Other callbacks may log more.
        """
        stopping = [each for each in self.members if isinstance(each, EarlyStopping)]
        for each in stopping if len(stopping) == len(self.members) else ():
            if each.monitor in {f"val_{name}" for name in names} - {*names}:
                message = f"EarlyStopping watches {each.monitor!r}, but there is no validation."
                trained = each.monitor.removeprefix("val_")
                hint = f'Pass validation_data=(x_val, y_val), or EarlyStopping("{trained}").'
                raise ArgumentError(message, argument="callbacks", hint=hint)

    def reconsider(self, run: Run) -> None:
        """Asks those that ended the run in an earlier session whether they still would."""
        for member in self.members:
            if isinstance(member, EarlyStopping):
                member.reconsider(run)

    def begin_phase(self) -> None:
        """Lets those that end runs begin to count anew."""
        for member in self.members:
            if isinstance(member, EarlyStopping):
                member.begin_phase()

    @property
    def begin_with_something(self) -> bool:
        """Whether any has something to do as training begins."""
        return bool(self.functions) or any(_has_hook(c, "on_train_begin") for c in self.members)

    def train_begin(self, run: Run) -> None:
        """Before the first step of this session."""
        before = _clocks()
        self._call("on_train_begin", run, (), {})
        self._began = [*zip(before, _clocks(), strict=True)]

    def keep_clocks(self, put_back: Callable[[], None]) -> None:
        """Puts back what a checkpoint has of them, but when training has begun in this session."""
        owners = [memory.owner for memory in self._memories.values()]
        read = [
            (owner, name, value)
            for owner in owners
            for name, value in attributes_of(owner).items()
            if type(value) is float and any(a <= value <= b for a, b in self._began)
        ]
        put_back()
        for owner, name, value in read:
            set_attribute(owner, name, value)

    def epoch_begin(self, run: Run, epoch: int) -> None:
        """Before the first batch of an epoch."""
        self._call("on_epoch_begin", run, (epoch,), {})

    def batch_end(self, run: Run, logs: Mapping[str, Any], *, steps: int = 1) -> None:
        """After a batch, or several taken as one; ``run.step`` does not count them yet."""
        self._call("on_batch_end", run, (run.step + steps, logs), logs)

    def validation_end(self, run: Run, epoch: int, logs: Mapping[str, Any]) -> None:
        """After a validation, with its values."""
        if self._hooks["on_validation_end"]:
            self._call("on_validation_end", run, (epoch, logs), logs)

    def epoch_end(self, run: Run, epoch: int, logs: Mapping[str, Any]) -> None:
        """After the validation of an epoch."""
        self._call("on_epoch_end", run, (epoch, logs), logs)

    def train_end(self, run: Run) -> None:
        """After the last epoch."""
        self._call("on_train_end", run, (), {})

    def _call(self, hook: str, run: Run, rest: tuple[Any, ...], logs: Mapping[str, Any]) -> None:
        for function in self._hooks[hook]:
            function(run, *rest)
        if self.functions and hook != "on_validation_end":
            step = run.step + (hook == "on_batch_end")
            event = TrainingEvent(hook.removeprefix("on_"), run, run.epoch, step, logs)
            for function in self.functions:
                function(event)

    def stateful(self) -> dict[str, Any]:
        """Returns the callbacks whose state goes into checkpoints, by name."""
        members = numbered(self.members).items()
        own = {name: callback for name, callback in members if _is_stateful(callback)}
        return own | self._memories

    def generators(self, kinds: tuple[type, ...]) -> dict[str, object]:
        """Returns the random generators of the callbacks that save nothing themselves."""
        return {
            f"generator {number} of {name}": generator
            for name, callback in numbered(self.members).items()
            if not _is_stateful(callback)
            for number, generator in enumerate(find_generators(callback, kinds))
        }


def _clocks() -> tuple[float, ...]:
    return time.time(), time.monotonic(), time.perf_counter()


def _is_stateful(callback: Any) -> bool:
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def _check(callback: Any) -> None:
    if isinstance(callback, type):
        message = f"The callback {callback.__name__} is a class."
        raise ArgumentError(message, argument="callbacks", hint=f"Pass {callback.__name__}().")
    if (library := _library_of(callback)) is not None:
        message = f"{type(callback).__name__} is a callback of {library}, and this is no run of it."
        hint = (
            "Pass colabkit.EarlyStopping() for one that stops early; checkpoints are written and"
            " curves drawn without one. For more, override hooks of colabkit.Callback."
        )
        raise ArgumentError(message, argument="callbacks", hint=hint)
    if near := _near_miss(callback):
        message = f"{type(callback).__name__}.{near[0]} is called by nothing."
        raise ArgumentError(message, argument="callbacks", hint=f"Did you mean {near[1]}?")
    is_idle = isinstance(callback, Callback) and not any(_has_hook(callback, h) for h in HOOKS)
    if is_idle and not (callable(callback) or _is_stateful(callback)):
        message = f"{type(callback).__name__} has no method that anything calls."
        hint = f"Override one of {', '.join(HOOKS)}."
        raise ArgumentError(message, argument="callbacks", hint=hint)
    if not callable(callback) and not any(hasattr(callback, hook) for hook in _NAMES):
        message = f"A {type(callback).__name__} is no callback."
        hint = f"Pass a function, or an object with one of {', '.join(HOOKS)}."
        raise ArgumentError(message, argument="callbacks", hint=hint)


def _library_of(callback: Any) -> str | None:
    """Returns the name of the library whose trainer alone can call a callback, or None."""
    bases = (each for each in type(callback).__mro__ if each.__name__.endswith("Callback"))
    tops = map(package_of, bases)
    return next((_LIBRARIES[top] for top in tops if top in _LIBRARIES), None)


def _hook_of(callback: Any, hook: str) -> Any:
    """Returns a callback's method for a hook, under the first of its names."""
    names = (hook, *_ALSO.get(hook, ()))
    return next((getattr(callback, name) for name in names if hasattr(callback, name)), None)


def _near_miss(callback: Any) -> tuple[str, str] | None:
    """Returns a method that nothing calls and the hook it was meant for, None where all is well."""
    for name in dir(type(callback)):
        meant = None if name in _NAMES else meant_by(name)
        # Who has that hook as well made the other for somebody else.
        if meant is not None and not _has_hook(callback, meant):
            return name, meant
    return None


def _has_hook(callback: Any, hook: str) -> bool:
    """Whether a callback has a hook of its own, under any of its names."""
    own = (getattr(callback, name, None) for name in (hook, *_ALSO.get(hook, ())))
    return any(each is not None and not _is_bases(each) for each in own)


def _is_bases(method: Any) -> bool:
    function = getattr(method, "__func__", method)
    return any(function is getattr(Callback, hook, _NONE) for hook in HOOKS)
