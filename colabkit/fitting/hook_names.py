"""Which hook of a callback a name means that other libraries, or a slip, have in its place."""

from __future__ import annotations

import difflib
import re

HOOKS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_end",
    "on_validation_end",
    "on_epoch_end",
    "on_train_end",
)
# The first that a name has a word of decides: Lightning's on_train_epoch_end is one of epochs.
_WHAT = {
    "validation": "eval evaluate evaluation val valid validate validation",
    "batch": "batch iter iteration minibatch step",
    "epoch": "epoch",
    "train": "fit train training",
}
_BEGINS = frozenset({"before", "begin", "begins", "start", "started", "starts"})
_ENDS = frozenset({"after", "done", "end", "ended", "ends", "finish", "finished"})
_SAID_FIRST = frozenset({"after", "before", "on"})
# Moments of other libraries that are none of a hook's.
_OTHERS = frozenset(
    {
        "backward", "checkpoint", "grad", "log", "optimizer", "predict", "sanity", "save", "test",
        "zero",
    }
)  # fmt: skip
_SLIP = 0.85


def meant_by(name: str) -> str | None:
    """Returns the hook that the name of a method means, None where it is no hook's.

    Example:
        >>> meant_by("on_train_epoch_end"), meant_by("onEpochStart"), meant_by("on_wednesday")
        ('on_epoch_end', 'on_epoch_begin', None)
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
    if words[0] not in _SAID_FIRST:
        return f"on_{name}" if f"on_{name}" in HOOKS else None
    if not _OTHERS.isdisjoint(words):
        return None
    known = set(words)
    what = next((w for w, others in _WHAT.items() if known & set(others.split())), None)
    strange = known - _SAID_FIRST - _BEGINS - _ENDS - _words_of_what()
    if what is None or strange:
        return next(iter(difflib.get_close_matches("_".join(words), HOOKS, 1, _SLIP)), None)
    when = "begin" if known & _BEGINS and what in {"epoch", "train"} else "end"
    return f"on_{what}_{when}"


def _words_of_what() -> set[str]:
    return {each for others in _WHAT.values() for each in others.split()}
