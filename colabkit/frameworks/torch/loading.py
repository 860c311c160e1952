"""What the sources of batches share in handling a DataLoader's parts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from torch.utils import data as torch_data

from colabkit.frameworks.users_own import attributes_of


def identity(value: Any) -> Any:
    """Returns what it is given: batches arrive collated."""
    return value


class InitInWorker:
    """Calls the user's worker_init_fn with the user's own dataset in sight.

    An interrupt reaches every process of a notebook: a worker that it ended would end the
    training, which is to be saved. A worker ends with the process that it works for.
    """

    def __init__(self, user_function: Callable[[int], None] | None) -> None:
        self._user_function = user_function

    def __call__(self, worker_id: int) -> None:
        """Runs in each worker as it starts."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._user_function is None:
            return
        info: Any = torch_data.get_worker_info()
        ours = info.dataset
        # PyTorch forbids the plain assignment.
        object.__setattr__(info, "dataset", ours.dataset)
        try:
            self._user_function(worker_id)
        finally:
            object.__setattr__(info, "dataset", ours)


def loader_within(source: object) -> torch_data.DataLoader[Any] | None:
    """Returns the DataLoader that an iterable is, or reads from, such as webdataset's WebLoader."""
    if isinstance(source, torch_data.DataLoader):
        return source
    for value in list(attributes_of(source).values()):
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, torch_data.DataLoader):
                return each
    return None


def length_of(value: Any) -> int | None:
    """Returns the length of a value, None where it does not say: a loop never asks for it."""
    try:
        return len(value)
    except (TypeError, NotImplementedError, ValueError, AttributeError):
        return None


def pinned(batch: Any) -> Any:
    pin: Callable[[Any], Any] = torch_data._utils.pin_memory.pin_memory  # public nowhere else
    return pin(batch)


def end_workers(source: object) -> None:
    """Ends a loader's persistent workers, whose generators are where its passes have brought them.

    A resume has others, which begin with what the loader has now.
    """
    loader = loader_within(source)
    if loader is not None and loader.persistent_workers:
        loader._iterator = None
