"""What Keras' callbacks are asked before and while they are used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from colabkit.errors import ArgumentError
from colabkit.frameworks.keras.beside import Beside
from colabkit.frameworks.numbered import numbered

if TYPE_CHECKING:
    from colabkit.fitting.callbacks import CallbackList
    from colabkit.fitting.keras.fit_run import KerasRun

_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raises ArgumentError for a class in place of an object, and for a second backup."""
    for callback in callbacks:
        if isinstance(callback, type):
            message = f"The callback {callback.__name__} is a class."
            raise ArgumentError(message, argument="callbacks", hint=f"Pass {callback.__name__}().")
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            message = "BackupAndRestore would restore its own, older backup over the checkpoint."
            hint = "Leave it out: this fit saves and resumes by itself, at the very batch."
            raise ArgumentError(message, argument="callbacks", hint=hint)


def stopping(callbacks: Sequence[Any], epoch: int) -> str:
    """Returns the class of the early stopping that ends the training behind an epoch, or ""."""
    found = (c for c in callbacks if isinstance(c, keras.callbacks.EarlyStopping))
    return next((type(c).__name__ for c in found if 0 < c.stopped_epoch == epoch), "")


def reconsider(run: KerasRun, callbacks: Sequence[Any], own: CallbackList, beside: Beside) -> None:
    """Takes back an end of an earlier session that would not come with today's callbacks.

    Args:
        run: The run.
        callbacks: All of the user's.
        own: Those in colabkit's form.
        beside: What is kept of those in Keras' form.
    """
    run.reconsider_end(callbacks)
    own.reconsider(run)
    for name, callback in numbered(callbacks).items():
        if isinstance(callback, keras.callbacks.EarlyStopping):
            has_stopped = beside.kept(f"{name}.stopped_epoch", 0)
            if has_stopped and beside.watches_another(name):
                run.go_on(f"{callback.monitor} is watched now")
            elif has_stopped and beside.kept(f"{name}.wait", 0) < callback.patience:
                run.go_on(f"patience is {callback.patience} epochs now")


def keep_rows(callbacks: Sequence[Any], *, epoch: int) -> None:
    """Has loggers go on with the file of an earlier session, from an epoch on."""
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            callback.append = True
            _cut_rows(Path(callback.filename), callback.sep, epoch=epoch)


def _cut_rows(path: Path, separator: str, *, epoch: int) -> None:
    """Cuts off what is torn, and the rows of an epoch or later: they are written again."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return  # on the machine before
    while lines:
        first = lines[-1].decode(errors="replace").split(separator)[0].strip()
        if lines[-1].endswith(b"\n") and not (first.isdigit() and int(first) >= epoch):
            break
        lines.pop()
    os.truncate(path, sum(map(len, lines)))


def watches_batches(callback: Any) -> bool:
    """Whether a callback does something at each batch."""
    return _overrides(callback, _BATCH_HOOKS)


def watches_tests(callback: Any) -> bool:
    """Whether a callback does something at each batch of a validation."""
    return _overrides(callback, _TEST_HOOKS)


def begins_by_own_code(callback: Any) -> bool:
    """Whether what a callback does before the first epoch is none of Keras' own."""
    for name in ("set_model", "on_train_begin"):
        hook = vars(callback).get(name, getattr(type(callback), name))
        if str(getattr(hook, "__module__", "")).partition(".")[0] != "keras":
            return True
    return False


def _overrides(callback: Any, hooks: Sequence[str]) -> bool:
    base = keras.callbacks.Callback
    return any(
        hook in vars(callback) or getattr(type(callback), hook) is not getattr(base, hook)
        for hook in hooks
    )
