"""What a source turned out to be."""

from __future__ import annotations

import dataclasses
import enum

from colabkit.datasets.reading.split_names import SplitArchive


class SourceKind(enum.Enum):
    """What a dataset comes from."""

    ARCHIVES = "one archive or several"
    PARTS = "files named by a pattern or a list"
    FOLDER = "a folder"
    SERVICE = "what a service's own library downloads"
    MISSING = "nothing that can be reached now"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What a source turned out to be.

    Attributes:
        name: Its absolute name, the same in every session.
        label: A short name for the user.
        kind: What it is.
        paths: The archives' paths or URLs in order, or the one folder.
        error: Why it cannot be reached; None when it can.
        splits: The archives among the paths that are in parts.
        note: What to say of how the source was understood.
    """

    name: str
    label: str
    kind: SourceKind
    paths: tuple[str, ...]
    error: Exception | None = None
    splits: tuple[SplitArchive, ...] = ()
    note: str = ""


def is_url(source: str) -> bool:
    """Whether a source is a URL.

    Example:
        >>> is_url("https://example.org/cats.zip"), is_url("MyDrive/cats.zip")
        (True, False)
    """
    return "://" in source
