"""Checks of arguments that several calls share."""

from __future__ import annotations

import contextlib
import numbers
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.other_names import OtherNames, answering
from colabkit.runs.other_names import OF_RUN

PLACE_NAMES = frozenset({"epoch", "step", "seconds"})


def require_thread(ident: int | None, tell: Callable[[Exception], None]) -> None:
    """Raises ArgumentError where batches are read in another thread than the loop's, if known.

    Args:
        ident: That of the loop's thread.
        tell: Is given the error for that thread, which may wait for the batches.
    """
    if ident is not None and ident != threading.get_ident():
        message = "run.batches() is read in another thread than the one that trains."
        hint = "Read it in the loop itself; to read ahead, give its DataLoader num_workers=2."
        if ident == threading.main_thread().ident:
            tell(ArgumentError(message, argument="data", hint=hint))
        raise ArgumentError(message, argument="data", hint=hint)


def require_count(
    name: str, value: object, *, hint: str = "Pass a whole number from 1 on."
) -> None:
    """Raises ArgumentError unless a value is a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError.of(name, value, hint)


def require_flag(name: str, value: object) -> None:
    """Raises ArgumentError unless a value is True or False: any word would count as True."""
    if value not in (True, False):
        raise ArgumentError.of(name, value, "Pass True or False.")


def require_list(name: str, value: object) -> None:
    """Raises ArgumentError for one thing where a list of them is to be passed."""
    if not isinstance(value, Iterable):
        message = f"{name} is of type {type(value).__name__}, and not a list."
        raise ArgumentError(message, argument=name, hint=f"Pass {name}=[...].")


def seed_of(value: Any) -> int:
    """Returns the seed, 0 for None; raises ArgumentError unless it is an integer."""
    if value is not None and not isinstance(value, numbers.Integral):
        raise ArgumentError.of("seed", value, "Pass a whole number, or leave it out.")
    return 0 if value is None else int(value)


def require_folder(value: object) -> None:
    """Raises ArgumentError unless a value can be the path or the URL of a run folder."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and value.strip()):
        return
    said = f"{value!r}" if isinstance(value, str) else f"of type {type(value).__name__}"
    message = f"ckpt_dir is {said}, not the path of a folder."
    hint = 'Pass one such as "MyDrive/runs/cats": fit(model, data, ckpt_dir), Run(ckpt_dir, ...).'
    if isinstance(value, tuple | list) or hasattr(value, "__array__"):
        hint = "The order is fit(model, data, ckpt_dir); data of x and y is one argument: (x, y)."
    elif hasattr(value, "compile"):
        hint = "The model comes first, and the folder after it."
    raise ArgumentError(message, argument="ckpt_dir", hint=hint)


# An object may have any name, so only one that stands for the folder is answered by itself.
answered = answering(
    OtherNames(OF_RUN.renamed),
    takes_more=True,
    usage="Run(ckpt_dir, model=model, optimizer=optimizer)",
)


@contextlib.contextmanager
def answering_names(named: Mapping[str, Any], *, known: Iterable[str]) -> Iterator[None]:
    """Answers an object that cannot be kept with what its name is elsewhere an argument for.

    Args:
        named: What was passed under names of its own.
        known: The arguments that there are, one of which may have been meant.
    """
    try:
        yield
    except ArgumentError as error:
        name = error.argument
        if name not in named or isinstance(named[name], type):
            raise
        hint = OF_RUN.hint(name, named[name], known=known)
        if not hint:
            raise
        message = f"Run has no argument {name!r}, and {error.message}"
        raise ArgumentError(message, argument=name, hint=hint) from error.__cause__


def joined_objects(objects: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the objects of a run; raises ArgumentError where that is not what was passed."""
    if objects is None:
        return dict(named)
    if not isinstance(objects, Mapping) or not all(isinstance(name, str) for name in objects):
        message = f"objects is a {type(objects).__name__}, not a dict of objects by name."
        hint = 'Pass Run(folder, model=model), or objects={"model": model}.'
        raise ArgumentError(message, argument="objects", hint=hint)
    if twice := sorted(objects.keys() & named):
        message = f"{twice[0]} is given twice, by its name and in objects."
        raise ArgumentError(message, argument=twice[0], hint="Give it once.")
    return {**objects, **named}


@contextlib.contextmanager
def as_validation_data() -> Iterator[None]:
    """Makes an ArgumentError on ``data`` one on ``validation_data``, which was read."""
    try:
        yield
    except ArgumentError as error:
        if error.argument != "data":
            raise
        message = f"In validation_data: {error.message}"
        named = ArgumentError(message, argument="validation_data", hint=error.hint)
        raise named from error.__cause__


def require_free_names(names: Iterable[str]) -> None:
    """Raises ArgumentError when a value would have the name of a column of every history."""
    if not PLACE_NAMES.isdisjoint(names):
        taken = ", ".join(sorted(PLACE_NAMES.intersection(names)))
        message = f"A value cannot be called {taken}: the history has a column of that name."
        raise ArgumentError(message, argument=taken, hint="Choose another name.")


def name_of(phase: str | None) -> str:
    """Returns a phase's name, "" for none; raises ArgumentError for what is no name."""
    if phase is None:
        return ""
    if isinstance(phase, str) and phase.strip():
        return phase
    raise ArgumentError.of("phase", phase, 'Pass a name, such as "fine-tune".')
