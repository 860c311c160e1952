"""What a checkpoint store asks of the place it writes to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Volume(Protocol):
    """Named blobs that are whole or not there at all."""

    location: str
    """Where it is, as the user knows it."""

    is_slow: bool
    """Whether a checkpoint should go through this machine's disk on its way there."""

    @property
    def root(self) -> Path | None:
        """The folder that it is in, None where no path leads to it."""
        ...

    @property
    def anywhere(self) -> str:
        """What opens it again, in another process and at another mountpoint."""
        ...

    @property
    def identity(self) -> str:
        """What no other place has."""
        ...

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        """Publishes a blob under a name; on failure nothing is left under it."""
        ...

    def read(self, name: str) -> Bytes:
        """Returns a blob in memory of its own."""
        ...

    def list(self, folder: str) -> dict[str, int]:
        """Returns the names in a folder and their sizes in bytes."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Removes blobs; those already gone are no error."""
        ...

    def free_bytes(self) -> int | None:
        """Returns the room left, None where the place does not say."""
        ...

    def sweep(self) -> None:
        """Removes what writers that died have left behind."""
        ...


@runtime_checkable
class Uploading(Protocol):
    """A volume whose blobs are durable only some time after they were written."""

    def confirmed(self, names: Iterable[str]) -> bool | None:
        """Returns whether all of these are uploaded, None where the volume does not say."""
        ...
