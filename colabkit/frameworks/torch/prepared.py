"""What Accelerate's ``prepare`` gives: the loader, optimizer and gradient count of one process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import data as torch_data

from colabkit.frameworks.base import Feed, Start
from colabkit.frameworks.lending import lend
from colabkit.frameworks.torch.device import moved
from colabkit.frameworks.users_own import attributes_of


def is_prepared_loader(loader: object) -> bool:
    """Whether a loader wraps one of PyTorch's, and says when its last batch is out."""
    inner = getattr(loader, "base_dataloader", None)
    return isinstance(inner, torch_data.DataLoader) and hasattr(loader, "end_of_dataloader")


def plain_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Returns the optimizer inside a wrapper such as Accelerate's, which has no hooks itself."""
    inner = getattr(optimizer, "optimizer", None)
    has_hooks = hasattr(optimizer, "_optimizer_step_pre_hooks")
    return inner if isinstance(inner, torch.optim.Optimizer) and not has_hooks else optimizer


def scaler_of(optimizer: torch.optim.Optimizer) -> Any:
    """Returns the gradient scaler that a wrapper steps with, or None."""
    is_wrapper = plain_optimizer(optimizer) is not optimizer
    return getattr(optimizer, "scaler", None) if is_wrapper else None


def gathers_gradients() -> bool:
    """Whether Accelerate, where it is in use, has left the newest batch's gradients to wait.

    How many it has is counted in the Accelerator, which begins at 0 in a new session: only
    where it has just stepped does a session go on as the last one would have.

    Source:
        ``GradientState`` is one for the process, whatever objects were prepared.
    """
    state = getattr(sys.modules.get("accelerate.state"), "GradientState", None)
    return getattr(state, "_shared_state", {}).get("sync_gradients") is False


def batches_gathered(*objects: object) -> int:
    """Returns how many batches make one step where Accelerate has prepared any of the objects.

    Source:
        ``Accelerator(gradient_accumulation_steps=...)`` is one setting for the process.
    """
    # Its loaders, optimizers and schedules all hold it.
    held = (attributes_of(each).get("gradient_state") for each in objects)
    return max(getattr(each, "num_steps", 1) for each in held)


class PreparedFeed:
    """The loader inside a prepared one, which is told what it would have noticed itself.

    Args:
        loader: What ``prepare`` gave; batches go to its device.
        inner: The feed of the loader inside it.
    """

    def __init__(self, loader: Any, inner: Feed) -> None:
        self._loader = loader
        self._inner = inner
        self._state: object = None
        self.length = inner.length

    @property
    def goes_back(self) -> bool:
        """Whether a pass can be entered before the place that the inner one's state names."""
        return getattr(self._inner, "goes_back", True)

    @property
    def keeper(self) -> Any:
        """The object whose state is the source's place."""
        return getattr(self._inner, "keeper", self._inner)

    def lend(self) -> Callable[[], bool]:
        """Lets go of what it reads, between two passes; returns what takes it back where it is."""
        inner: Any = self._inner
        own, within = lend(self, ("_loader",)), inner.lend()
        return lambda: own() and within()

    def gave(self, state: Mapping[str, Any]) -> bool:
        """Whether it gives first what the source of a checkpoint's state gave."""
        inner: Any = self._inner
        return bool(inner.gave(state))

    @property
    def begins_anew(self) -> bool:
        """Whether each reading begins at the beginning, wherever the one before was left."""
        return getattr(self._inner, "begins_anew", True)

    @property
    def reads_once(self) -> bool:
        """Whether the loader is good for one pass only."""
        return getattr(self._inner, "reads_once", False)

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields batches; the last of a pass ends a group of gathered gradients."""
        loader = self._loader
        loader.begin()
        try:
            for batch, is_last in self._marked(start):
                loader.end_of_dataloader = is_last
                yield batch if loader.device is None else moved(batch, loader.device)
        finally:
            loader.end()

    def _marked(self, start: Start) -> Iterator[tuple[Any, bool]]:
        batches = self._inner.batches(start)
        if self.length is not None:
            for number, batch in enumerate(batches, start.skip + 1):
                self._state = self._inner.state()
                yield batch, number == self.length
            return
        # Only one batch more tells, and the state must stay that of the one handed out.
        ahead = next(batches, batches)
        while (batch := ahead) is not batches:
            self._state = self._inner.state()
            ahead = next(batches, batches)
            yield batch, ahead is batches

    def state(self) -> object:
        """Returns the state that the loader inside had when it gave the newest batch."""
        return self._state

    def describe(self) -> Mapping[str, Any]:
        """Returns length and batch size."""
        return self._inner.describe()

    def reasons(self) -> tuple[str, ...]:
        """Returns why a pass cannot be repeated bitwise."""
        return self._inner.reasons()

    def notices(self) -> tuple[str, ...]:
        """Returns under which condition it can."""
        return self._inner.notices()
